//! Who may look: whoever has the token, or, where none is needed, whoever is on this machine and means this machine.

use std::net::IpAddr;

use subtle::ConstantTimeEq;

use super::http::{Request, Response};

/// The name of the cookie.
const COOKIE: &str = "snap_serve";

/// Lets in, or not.
pub struct Guard {
    /// What is derived from the token. The token itself is not kept, and the cookie is not the token.
    pass: Option<[u8; 32]>,
}

impl Guard {
    pub fn new(token: Option<&[u8]>) -> Self {
        Self { pass: token.map(derive) }
    }

    /// The answer to who may not look, and to who just showed the token.
    pub fn stop(&self, request: &Request) -> Option<Response> {
        let Some(pass) = &self.pass else { return means_another(request).then(elsewhere) };
        let bearer = request.authorization.as_deref().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| derive(token.trim().as_bytes()))
        });
        if bearer.is_some_and(|shown| same(&shown, pass)) || cookies(request).any(|shown| same(shown.as_bytes(), hex(pass).as_bytes())) {
            return None;
        }
        match request.value("token").map(|token| derive(&token)) {
            Some(shown) if same(&shown, pass) => self.welcome(request, pass),
            _ => Some(unknown()),
        }
    }

    /// A browser gets a cookie and leaves the token behind, which would otherwise stand in its history; a monitor just asks.
    fn welcome(&self, request: &Request, pass: &[u8; 32]) -> Option<Response> {
        if is_for_monitors(request) {
            return None;
        }
        let mut response = Response::text(303, "This way");
        let kept: Vec<&str> = request.query.split('&').filter(|pair| !pair.starts_with("token=")).collect();
        let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
        // Two slashes in front would be the name of another host.
        let path = request.path.trim_start_matches('/');
        response.more.push(("Location", format!("/{path}{query}")));
        response.more.push(("Set-Cookie", format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Lax", hex(pass))));
        Some(response)
    }
}

/// Whether it is asked by programs, which follow no redirections.
fn is_for_monitors(request: &Request) -> bool {
    request.path == "/metrics" || request.path == "/health" || request.path.starts_with("/health/")
}

fn derive(token: &[u8]) -> [u8; 32] {
    blake3::derive_key("snap 2026 v1 cookie of snap serve", token)
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cookies(request: &Request) -> impl Iterator<Item = &str> {
    let all = request.cookie.as_deref().unwrap_or_default().split(';');
    all.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Whether the name that led here is not this machine's own: then a page somewhere made its name point here, to read along.
fn means_another(request: &Request) -> bool {
    let Some(host) = request.host.as_deref() else { return !request.is_old };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    !name.eq_ignore_ascii_case("localhost") && !name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn elsewhere() -> Response {
    Response::text(403, "The name you came by is not this machine's own (127.0.0.1, localhost). With a token, any name will do")
}

fn unknown() -> Response {
    let mut response =
        Response::text(401, "The token is missing or wrong: open /?token=TOKEN once, or send the header Authorization: Bearer TOKEN");
    response.more.push(("WWW-Authenticate", "Bearer".into()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let value = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        let (host, authorization, cookie) = (value("host"), value("authorization"), value("cookie"));
        Request { path: path.into(), query: query.into(), host, authorization, cookie, ..Request::default() }
    }

    fn status(guard: &Guard, target: &str, headers: &[(&str, &str)]) -> u16 {
        guard.stop(&request(target, headers)).map_or(200, |response| response.status)
    }

    #[test]
    fn only_names_of_this_machine_lead_here_without_a_token() {
        let guard = Guard::new(None);
        for host in ["127.0.0.1:8077", "localhost", "LocalHost:1", "[::1]:8077", "127.1.2.3"] {
            assert_eq!(status(&guard, "/", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:8077", "127.0.0.1.evil.example", "localhost.evil.example", "", "192.168.1.1", "[fe80::1]", "[::1"] {
            assert_eq!(status(&guard, "/", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&guard, "/", &[]), 403);
        assert_eq!(guard.stop(&Request { is_old: true, ..request("/", &[]) }), None);
    }

    #[test]
    fn the_token_opens_in_three_ways() {
        let guard = Guard::new(Some(b"sesame"));
        assert_eq!(status(&guard, "/", &[("authorization", "bearer sesame")]), 200);
        for wrong in ["Bearer sesam", "Bearer", "Basic sesame", "sesame", "Bearer sesame sesame"] {
            assert_eq!(status(&guard, "/", &[("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(status(&guard, "/?token=sesam", &[]), 401);
        assert_eq!(status(&guard, "/health?token=sesame", &[]), 200);
        let welcome = guard.stop(&request("//job/a?x=1&token=sesame&y=2", &[])).unwrap();
        assert_eq!((welcome.status, &welcome.more[0]), (303, &("Location", "/job/a?x=1&y=2".into())));
        let cookie = welcome.more[1].1.split(';').next().unwrap().to_owned();
        assert!(!cookie.contains("sesame"));
        assert_eq!(status(&guard, "/", &[("cookie", &format!("a=b; {cookie}"))]), 200);
        assert_eq!(status(&guard, "/", &[("cookie", &cookie[..cookie.len() - 1])]), 401);
        assert_eq!(status(&guard, "/", &[("host", "localhost"), ("cookie", "snap_serve=sesame")]), 401);
    }
}
