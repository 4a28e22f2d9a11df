use super::*;

fn field(name: &str, value: &str) -> String {
    let name: HeaderName = name.parse().unwrap();
    shown(&name, &value.parse().unwrap()).into_owned()
}

#[test]
fn a_header_field_that_is_a_credential_is_known_by_how_its_name_ends() {
    for name in [
        "authorization",
        "x-authorization",
        "cookie",
        "set-cookie",
        "x-consul-token",
        "x-nomad-token",
        "x-api-token",
        "x-auth-token",
        "x-registry-auth",
        "x-api-key",
        "apikey",
        "x-nuget-apikey",
        "x-functions-key",
        "ocp-apim-subscription-key",
        "x-jfrog-art-api",
        "x-hasura-admin-secret",
        "x-db-password",
        "cf-access-jwt-assertion",
    ] {
        assert!(is_field(name) && signs_in(name), "{name}");
    }
    for name in [
        "x-csrf-token",
        "x-csrftoken",
        "x-atlassian-token",
        "npm-otp",
        "x-amz-mfa",
        "mcp-session-id",
        "x-amz-server-side-encryption-customer-key",
        "x-goog-encryption-key",
        "x-some-key",
        "x-secret-id",
    ] {
        assert!(is_field(name) && !signs_in(name), "{name}");
    }
    for name in [
        "accept",
        "user-agent",
        "www-authenticate",
        "idempotency-key",
        "sec-websocket-key",
        "x-ms-documentdb-partitionkey",
        "lock-token",
        "x-amz-continuation-token",
        "access-control-allow-credentials",
        "x-pass",
        "keep",
        "max-tokens",
        "x-amz-server-side-encryption-customer-key-md5",
    ] {
        assert!(!is_field(name) && !signs_in(name), "{name}");
    }
}

#[test]
fn a_word_is_seen_wherever_it_stands() {
    for word in WORDS {
        for name in [word.to_owned(), format!("x-{word}"), format!("spa{word}"), format!("é{word}s")] {
            assert!(has_word(&name), "{name}");
        }
    }
    for name in ["accept", "x-pass", "api", "sec-fetch-site", "access-control-allow-origin", ""] {
        assert!(!has_word(name), "{name}");
    }
}

#[test]
fn a_query_is_shown_without_credentials_and_with_what_is_read() {
    for (query, own, expected) in [
        (
            "q=1&Access_Token=hunter2&X-Amz-Signature=hunter2&X-Amz-Date=7&%6b=hunter2",
            Some("k"),
            "q=1&Access_Token=(withheld)&X-Amz-Signature=(withheld)&X-Amz-Date=7&%6b=(withheld)",
        ),
        (
            "access%5Ftoken=hunter2&client_secret=hunter2",
            None,
            "access%5Ftoken=(withheld)&client_secret=(withheld)",
        ),
        ("a=1;token=hunter2;b", None, "a=1;token=(withheld);b"),
        ("key=prod/db&code=404", None, "key=prod/db&code=404"),
        ("key=AIzaSy-0123456789abc", None, "key=(withheld)"),
        ("nextToken=hunter2&page_token=hunter2", None, "nextToken=hunter2&page_token=hunter2"),
        (
            "next=https%3A%2F%2Fu%3Apw%40x%2F&r=https://x/?token=hunter2&s=https%3A%2F%2Fx%2Fy",
            None,
            "next=(withheld)&r=(withheld)&s=https%3A%2F%2Fx%2Fy",
        ),
    ] {
        assert_eq!(shown_query(query, own), expected);
    }
}

#[test]
fn urls_in_header_fields_are_shown_without_what_opens_them() {
    for (name, value, expected) in [
        (
            "location",
            "https://b.s3.test/k/x.tgz?X-Amz-Algorithm=AWS4&X-Amz-Date=20260131T120000Z&X-Amz-Expires=300&X-Amz-Signature=5eaf00d",
            "https://b.s3.test/k/x.tgz?X-Amz-Algorithm=AWS4&X-Amz-Date=20260131T120000Z&X-Amz-Expires=300&X-Amz-Signature=(withheld)",
        ),
        (
            "location",
            "https://x.test/c?sv=2024-01-01&sig=a%2Bb%3D",
            "https://x.test/c?sv=2024-01-01&sig=(withheld)",
        ),
        ("location", "/cb?code=1234&state=abc", "/cb?code=(withheld)&state=abc"),
        (
            "location",
            "cb#access_token=hunter2&token_type=bearer",
            "cb#access_token=(withheld)&token_type=bearer",
        ),
        ("location", "https://x.test/reset?t=0123456789abcdef", "https://x.test/reset?t=(withheld)"),
        ("location", "https://x.test/?0123456789abcdef#top", "https://x.test/?(withheld)#top"),
        ("location", "https://ann:hunter2@x.test:8443/a@b", "https://(withheld)@x.test:8443/a@b"),
        ("referer", "https://x.test/a?page=2&q=%zz", "https://x.test/a?page=2&q=(withheld)"),
        (
            "link",
            "<https://x.test/l?after=Y3Vyc29yOnYyOpK5&per_page=9>; rel=\"next\", </l?token=hunter2>; rel=\"last\"",
            "<https://x.test/l?after=Y3Vyc29yOnYyOpK5&per_page=9>; rel=\"next\", </l?token=(withheld)>; rel=\"last\"",
        ),
        ("refresh", "5; url=/x?ticket=ST-1", "5; url=/x?ticket=(withheld)"),
        ("destination", "/dav/b?jwt=hunter2", "/dav/b?jwt=(withheld)"),
        ("x-ms-copy-source", "https://x.test/c/b?sp=r&sig=hunter2", "https://x.test/c/b?sp=r&sig=(withheld)"),
        (
            "x-callback",
            "https://x.test/cb?to=https%3A%2F%2Fy.test%2F%3Ftoken%3Dhunter2",
            "https://x.test/cb?to=(withheld)",
        ),
    ] {
        assert_eq!(field(name, value), expected);
    }
}

#[test]
fn what_is_no_url_stays_as_it_is() {
    for (name, value) in [
        ("user-agent", "curl/8.5 (+https://x.test/bot.html#v2)"),
        ("if-none-match", "\"a?token=b\""),
        ("from", "ann@example.com"),
        ("x-when", "12:00:01?"),
        ("content-security-policy", "default-src 'self' https://x.test; report-uri https://x.test/r"),
        ("location", "/a/0123456789abcdef/b"),
        ("www-authenticate", "Bearer realm=\"https://x.test/token\",service=\"x\""),
        ("www-authenticate", "Basic realm=\"x\""),
    ] {
        assert_eq!(field(name, value), value);
    }
}

#[test]
fn what_says_that_it_is_a_credential_is_one_under_any_name() {
    for value in ["Bearer hunter2", "basic aHVudGVyMg==", "eyJhbGciOiJub25lIn0.e30.hunter2"] {
        assert_eq!(field("x-backend", value), WITHHELD);
    }
}

#[test]
fn a_credential_in_a_body_is_known_by_its_name_however_that_is_written() {
    for secret in [
        "body.password",
        "body.a.access_token",
        "body.accessToken",
        "body.user[Client-Secret]",
        "body.[token]",
        "body.newPassword",
        "body.a.db_password",
        "body.secret_id",
        "body.auths.x.auth",
        "body.code_verifier",
    ] {
        assert!(is_in_body(secret), "{secret}");
    }
    for other in [
        "body",
        "body.key",
        "body.tokens",
        "body.max_tokens",
        "body.password.hint",
        "body.nextToken",
        "body.SecretId",
        "body.secretName",
        "body.author",
        "body.code",
        "header.x",
    ] {
        assert!(!is_in_body(other), "{other}");
    }
}

#[test]
fn an_authority_is_shown_without_who_asks() {
    assert_eq!(shown_authority("ann:hunter2@x.test"), "(withheld)@x.test");
    assert_eq!(shown_authority("x.test:80"), "x.test:80");
}
