//! What a request names beside its target: where to copy or move to (RFC 4918, 10.3), or what to copy or move from (object
//! stores, container registries). Each is decided like the target of a request.

use http::{HeaderMap, Method};
use tidegate_gate::policy::{Item, Value};

use crate::{
    options::Options,
    target::{self, Authority, Query},
};

const DESTINATION: &str = "destination";
/// How the fields end by which object stores copy.
const COPIES: &str = "-copy-source";
/// How fields end by which a server reads something itself and keeps it under the target, and what it does where that was.
const SOURCES: [(&str, &[&str]); 3] =
    [(COPIES, &["GET"]), ("-rename-source", &["GET", "DELETE"]), ("-move-source", &["GET", "DELETE"])];
/// How fields end that lead to something whose path they don't tell: OpenStack Swift's are of the account that the target's
/// path begins with, or another, and what a link or a manifest names is read later.
const UNTOLD: [&str; 4] = ["-copy-from", "-symlink-target", "-object-manifest", "destination-account"];

/// A path, and what is done there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Beside {
    method: &'static str,
    path: String,
}

impl Beside {
    /// All that a request names.
    ///
    /// # Errors
    /// It is said twice, cannot be understood, or is another server's.
    pub(crate) fn of(
        method: &Method,
        headers: &HeaderMap,
        authority: &Authority,
        tls: bool,
        options: &Options,
    ) -> Result<Vec<Self>, &'static str> {
        let mut all = Vec::new();
        for name in headers.keys().filter(|name| !options.pass.contains(name)) {
            let Some(methods) = done_at(name.as_str(), method)? else { continue };
            let mut values = headers.get_all(name).iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return Err("it names twice where to copy to or from");
            };
            let value = value.to_str().map_err(|_| "where it copies to or from is no path")?;
            if name == DESTINATION && !value.starts_with('/') && !value.contains("://") {
                return Err("its Destination is neither a URL nor a path from the root (RFC 4918, 10.3)");
            }
            let value =
                if name.as_str().ends_with(COPIES) { of_bucket(value, &authority.host)? } else { value };
            let path = path(value, authority, tls, options)?;
            all.extend(methods.iter().map(|method| Self { method, path: path.clone() }));
        }
        Ok(all)
    }

    /// The blob of another repository that a container registry is to take over into the one that is asked (OCI Distribution,
    /// "Mounting a blob from another repository").
    ///
    /// # Errors
    /// It doesn't say which, or says it twice.
    pub(crate) fn mounted(
        method: &Method,
        path: &str,
        query: Option<&Query>,
        options: &Options,
    ) -> Result<Option<Self>, &'static str> {
        const WHICH: &str = "it mounts a blob, and doesn't say for sure which, and from which repository";
        let begins_upload = path.trim_end_matches('/').ends_with("/blobs/uploads");
        let (Some(query), true) = (query, begins_upload && method == Method::POST) else { return Ok(None) };
        let named = |name: &str| {
            let values = query.parameters.iter().filter_map(|parameter| parameter.split_once('='));
            values.filter(|(its, _)| *its == name).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        match (named("mount").as_slice(), named("from").as_slice()) {
            ([], _) => Ok(None),
            ([digest], [from]) => {
                let root = path.find("/v2/").and_then(|at| path.get(..at + 4)).ok_or(WHICH)?;
                let path = target::path(&format!("{root}{from}/blobs/{digest}"), options.tolerated);
                Ok(Some(Self { method: "GET", path: path.map_err(|_| WHICH)? }))
            }
            _ => Err(WHICH),
        }
    }

    /// As rules see it: like the request itself, at this path.
    pub(crate) fn item(self, request: &Item) -> Item {
        let is_read = self.method == "GET";
        let path = target::as_rules_see(&self.path);
        let mut item = Item { fields: Vec::new(), must_name: request.must_name };
        for (name, value) in &request.fields {
            let value = match *name {
                "method" => Value::Word(self.method),
                "path" => Value::Text(path.as_str().into()),
                "query" | "grpc" => continue,
                "type" if is_read => continue,
                "body" if is_read => Value::Named(Vec::new()),
                "size" if is_read => Value::Number(0),
                _ => value.clone(),
            };
            item.fields.push((name, value));
        }
        item
    }
}

/// What a request of this method does where a field of this name says, if it says so.
fn done_at(name: &str, method: &Method) -> Result<Option<&'static [&'static str]>, &'static str> {
    if UNTOLD.iter().any(|end| name.ends_with(end)) {
        return Err("it names another object than its path does (options: {pass: [the field]} lets it)");
    }
    let copies: &[_] = &["COPY"];
    let moves: &[_] = &["MOVE"];
    Ok(match method.as_str() {
        "COPY" if name == DESTINATION => Some(copies),
        "MOVE" if name == DESTINATION => Some(moves),
        _ => SOURCES.iter().find(|(end, _)| name.ends_with(end)).map(|(_, methods)| *methods),
    })
}

/// What an object store is to copy from, as a path of the host that is asked: where AWS' hosts begin with the bucket's name, paths
/// don't, but the source does.
fn of_bucket<'a>(source: &'a str, host: &str) -> Result<&'a str, &'static str> {
    let is_store = |label: &str| label == "s3" || label.starts_with("s3-") || label.starts_with("s3express-");
    let bucket = host.match_indices('.').find_map(|(at, _)| {
        let (bucket, store) = host.split_at_checked(at)?;
        is_store(store.split('.').nth(1)?).then_some(bucket)
    });
    match bucket {
        None => Ok(source),
        Some(bucket) => {
            let source = source.strip_prefix('/').unwrap_or(source);
            let within = source.strip_prefix(bucket).filter(|key| key.starts_with('/'));
            within.ok_or("it copies from another bucket (options: {pass: [the field]} lets it)")
        }
    }
}

/// The path of a URL, or of what is one without saying where.
fn path(value: &str, authority: &Authority, tls: bool, options: &Options) -> Result<String, &'static str> {
    const NO_PATH: &str = "where it copies to or from is no path";
    let (server, rest) = match value.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find('/').ok_or(NO_PATH)?;
            let (server, rest) = rest.split_at_checked(at).ok_or(NO_PATH)?;
            (Some((scheme, Authority::parse(server).map_err(|_| NO_PATH)?)), rest)
        }
        None => (None, value),
    };
    if let Some((scheme, server)) = server {
        let usual = |tls: bool| if tls { 443 } else { 80 };
        let port = server.port.unwrap_or(usual(scheme.eq_ignore_ascii_case("https")));
        if server.host != authority.host || port != authority.port.unwrap_or(usual(tls)) {
            return Err("it copies to or from another server (options: {pass: [the field]} lets it)");
        }
    }
    let path = rest.split('?').next().unwrap_or_default();
    let absolute = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    target::path(&absolute, options.tolerated).map_err(|_| NO_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_in_the_host_s_name_is_the_one_that_is_copied_from() {
        for host in
            ["mine.s3.eu-central-1.amazonaws.com", "mine.s3-eu-west-1.amazonaws.com", "mine.s3.amazonaws.com"]
        {
            assert_eq!(of_bucket("mine/reports/a", host), Ok("/reports/a"), "{host}");
            assert_eq!(of_bucket("/mine/reports/a", host), Ok("/reports/a"), "{host}");
            for other in ["payroll/dump", "mine2/dump", "mine", "arn:aws:s3:eu:1:accesspoint/x/object/y"] {
                assert!(of_bucket(other, host).is_err(), "{host} {other}");
            }
        }
        assert_eq!(
            of_bucket("b/a", "my.bucket.s3.amazonaws.com"),
            Err("it copies from another bucket (options: {pass: [the field]} lets it)")
        );
        for host in ["s3.eu-central-1.amazonaws.com", "store.internal", "127.0.0.1"] {
            assert_eq!(of_bucket("payroll/dump", host), Ok("payroll/dump"), "{host}");
        }
    }
}
