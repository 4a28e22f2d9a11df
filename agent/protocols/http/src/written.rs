//! Requests as people write them, in cases and to `explain`.

use std::{net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tidegate_gate::policy::{Host, Misread, Resource, Shape, TlsMode};

use crate::{
    options::Options,
    request::{Asked, Way},
    tunnel::Destination,
    wire,
};

/// The shape of a request that is written as `GET /path`, or `GET https://host/path?query`, with header fields on the lines
/// that follow, and behind an empty line its body. Without a host it is the resource's first. A tunnel through a forward proxy is
/// `CONNECT host:port`.
pub fn shape_of_request(resource: &Resource, text: &str) -> Result<Shape, Misread> {
    let options = Options::of(resource).map_err(|error| error.message)?;
    let (head, body) = match text.split_once("\n\n") {
        Some((head, body)) => (head, Some(body.trim()).filter(|body| !body.is_empty())),
        None => (text, None),
    };
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), None) = (words.next(), words.next(), words.next()) else {
        return Err("write a method and a target: GET /path".into());
    };
    if method == "CONNECT" && options.proxy.is_some() {
        let destination = Destination::parse(target)?;
        return destination
            .is_nobody_s()
            .map_or_else(|| Ok(destination.shape()), |why| Err(Misread::Refused(why)));
    }
    let headers = headers(lines)?;
    let (way, scheme, authority, path) = addressed(resource, &options, target)?;
    let length = headers.get(http::header::CONTENT_LENGTH).map(wire::content_length).transpose();
    let told = body.map_or(0, |body| body.len() as u64);
    let asked = Asked {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method"))?,
        authority: Some(authority),
        scheme,
        target: path,
        version: Version::HTTP_2,
        length: Some(length.map_err(|error| error.to_string())?.unwrap_or(told)),
        headers,
        protocol: None,
    };
    let mut understood =
        asked.understand(&way, &options).map_err(|problem| Misread::Refused(problem.detail().to_owned()))?;
    if let Some(body) = body {
        // A message of gRPC is written as JSON.
        let body = match &understood.call {
            Some(call) => call.body_of_json(body)?,
            None => Bytes::copy_from_slice(body.as_bytes()),
        };
        match understood.fields(&body) {
            Ok(fields) => understood.knows(&fields, &body, false),
            Err(why) if understood.has_fields() => {
                return Err(Misread::Refused(format!("its body cannot be looked into: {why}")));
            }
            // Rules that look at it find nothing, as the gate does, and others don't look.
            Err(_) => {}
        }
    }
    Ok(Arc::unwrap_or_clone(understood.shape))
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("{line:?} is no header field"))?;
        let name =
            name.trim().parse::<http::HeaderName>().map_err(|_| format!("{name:?} is no header field"))?;
        headers
            .append(name, value.trim().parse().map_err(|_| format!("{value:?} is no header field's value"))?);
    }
    Ok(headers)
}

/// How a session would have been reached that asks for this: the way, scheme, authority and path.
fn addressed(
    resource: &Resource,
    options: &Options,
    target: &str,
) -> Result<(Way, Option<String>, String, String), String> {
    let address = resource.addresses.first();
    let destination = match address.map(|address| &address.host) {
        Some(Host::Net(net)) => net.addr(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let port = address.and_then(|address| address.port).unwrap_or(443);
    let (scheme, rest) = match target.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_owned()), rest),
        None => (None, target),
    };
    let at = rest.find('/').ok_or("write a path that begins with a slash")?;
    let (authority, path) = rest.split_at_checked(at).unwrap_or_default();
    let first = options.hosts.first().map_or_else(|| destination.to_string(), ToString::to_string);
    let authority = if authority.is_empty() { format!("{first}:{port}") } else { authority.to_owned() };
    let tls = resource.tls.mode != Some(TlsMode::Disable);
    Ok((
        Way { tls, server_name: None, destination: (destination, port).into(), names: None },
        scheme,
        authority,
        path.to_owned(),
    ))
}
