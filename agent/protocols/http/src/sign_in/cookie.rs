//! A cookie (RFC 6265).

use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

/// Puts the gate's cookie behind the client's others.
pub(super) fn add(name: &str, password: &[u8], headers: &mut HeaderMap) -> Result<(), &'static str> {
    let fits = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    if !password.iter().all(fits) {
        return Err("it has characters that no cookie has");
    }
    let own = Zeroizing::new([name.as_bytes(), b"=", password].concat());
    let both = Zeroizing::new([&*without(headers.get(header::COOKIE), name), &own].concat());
    let mut value = HeaderValue::from_bytes(&both).map_err(|_| "it makes no cookie")?;
    value.set_sensitive(true);
    headers.insert(header::COOKIE, value);
    Ok(())
}

/// A client's cookies but that of this name, ready for one more.
fn without(cookies: Option<&HeaderValue>, name: &str) -> Vec<u8> {
    let mut others = Vec::new();
    for cookie in cookies.iter().flat_map(|all| all.as_bytes().split(|byte| *byte == b';')) {
        let cookie = cookie.trim_ascii();
        let named = cookie.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if !cookie.is_empty() && named != name.as_bytes() {
            others.extend_from_slice(cookie);
            others.extend_from_slice(b"; ");
        }
    }
    others
}
