//! Cookies of this page and of no other: `__Host-` binds them to the host, to TLS and to the whole of it
//! (RFC 6265bis, section 4.1.3.2). `Lax`, as a link in a chat and the issuer's answer come from elsewhere; nothing is done on
//! such requests.

use hyper::{
    HeaderMap,
    header::{COOKIE, HeaderValue},
};

/// A login that is under way.
pub(crate) const LOGIN: &str = "__Host-tidegate-login";
/// Somebody who has logged in.
pub(crate) const SESSION: &str = "__Host-tidegate";

/// The value of this name, if the browser sent it once.
pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// A header that sets a cookie for so many seconds; 0 removes it.
pub(crate) fn set(name: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(text))])
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = sent("x__Host-tidegate=no; __Host-tidegate=yes; other=1");
        assert_eq!(get(&headers, SESSION), Some("yes"));
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        assert_eq!(get(&sent("__Host-tidegate=a; __Host-tidegate=b"), SESSION), None);
    }
}
