//! As much of HTTP as a page to look at needs: the head of a GET or HEAD, and an answer behind which the connection ends.

use std::fmt::Write as _;

use crate::limits::*;

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub is_head: bool,
    /// HTTP/1.0, which no browser speaks.
    pub is_old: bool,
    /// Without the query, as it came.
    pub path: String,
    pub query: String,
    pub host: Option<String>,
    pub authorization: Option<String>,
    pub cookie: Option<String>,
}

/// The head of a request, as far as it came.
#[derive(Debug, PartialEq)]
pub enum Head {
    Unfinished,
    Asked(Request),
    /// It cannot be answered but by this.
    Wrong(Response),
}

/// Reads what came so far.
pub fn read(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; SERVE_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < SERVE_HEAD_BYTES_MAX => Head::Unfinished,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Head::Wrong(Response::text(431, "The head of the request is too large"))
        }
        Err(_) => Head::Wrong(Response::text(400, "This is no request of HTTP/1")),
        Ok(httparse::Status::Complete(_)) => asked(&parsed),
    }
}

fn asked(parsed: &httparse::Request) -> Head {
    let is_head = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let mut refusal = Response::text(405, "There is nothing here but to look at: GET and HEAD");
            refusal.more.push(("Allow", "GET, HEAD".into()));
            return Head::Wrong(refusal);
        }
    };
    let target = parsed.path.unwrap_or_default();
    if !target.starts_with('/') {
        return Head::Wrong(Response::text(400, "The path has to begin with /"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request { is_head, is_old: parsed.version == Some(0), path: path.into(), query: query.into(), ..Request::default() };
    for header in parsed.headers.iter() {
        let field = match header.name.to_ascii_lowercase().as_str() {
            "host" => &mut request.host,
            "authorization" => &mut request.authorization,
            "cookie" => &mut request.cookie,
            _ => continue,
        };
        let value = std::str::from_utf8(header.value).map(str::to_owned);
        // One of two hosts, or tokens, is not for us to choose.
        match (value, &field) {
            (Ok(value), None) => *field = Some(value),
            _ => return Head::Wrong(Response::text(400, "A header is given twice, or is no text")),
        }
    }
    Head::Asked(request)
}

impl Request {
    /// The parts of the path, decoded. None if one is no text.
    pub fn parts(&self) -> Option<Vec<String>> {
        let parts = self.path.split('/').filter(|part| !part.is_empty());
        parts.map(|part| String::from_utf8(decode(part)).ok()).collect()
    }

    /// A value of the query, decoded; the first of that name.
    pub fn value(&self, name: &str) -> Option<Vec<u8>> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decode(value))
    }

    /// A number of the query; 0 if there is none.
    pub fn number(&self, name: &str) -> usize {
        let text = self.value(name).and_then(|value| String::from_utf8(value).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// Without percent signs. One that begins nothing stands for itself.
pub fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Bytes as they may stand in a path or query: letters, digits and a few signs, all else behind percent signs.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(*byte as char),
            byte => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub status: u16,
    kind: &'static str,
    pub body: Vec<u8>,
    /// Further headers, of our own making.
    pub more: Vec<(&'static str, String)>,
}

/// Nothing from anywhere, no script, no frame: what a name in a backup could smuggle in has nowhere to go.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Response {
    fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, body: body.into(), more: Vec::new() }
    }

    pub fn html(status: u16, body: String) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, "application/json", format!("{value}\n"))
    }

    /// What Prometheus reads.
    pub fn metrics(body: String) -> Self {
        Self::new(200, "text/plain; version=0.0.4; charset=utf-8", body)
    }

    pub fn text(status: u16, message: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{message}\n"))
    }

    /// The bytes to send.
    pub fn bytes(&self, is_head: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             Content-Security-Policy: {POLICY}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n",
            self.status,
            reason(self.status),
            self.kind,
            self.body.len(),
        );
        for (name, value) in &self.more {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> Option<u16> {
        match read(bytes) {
            Head::Wrong(response) => Some(response.status),
            _ => None,
        }
    }

    #[test]
    fn heads_are_read_as_they_come() {
        let whole = b"GET /job/a%2Fb?in=%ff&page=7 HTTP/1.1\r\nHOST: x:1\r\nCookie: c\r\nX: y\r\n\r\n";
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), Head::Unfinished, "{len}");
        }
        let Head::Asked(request) = read(whole) else { panic!() };
        assert_eq!((request.host.as_deref(), request.cookie.as_deref(), request.is_head), (Some("x:1"), Some("c"), false));
        assert_eq!(request.parts().unwrap(), ["job", "a/b"]);
        assert_eq!((request.value("in"), request.number("page"), request.value("x")), (Some(vec![0xff]), 7, None));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        for (head, refusal) in [
            ("POST / HTTP/1.1\r\n\r\n", Some(405)),
            ("GET http://x/ HTTP/1.1\r\n\r\n", Some(400)),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(400)),
            ("GET / HTTP/1.1\r\nHost: \u{1}\r\n\r\n", Some(400)),
            ("\u{16}\u{3}\u{1}", Some(400)),
            ("HEAD / HTTP/1.0\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()), refusal, "{head}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(SERVE_HEAD_BYTES_MAX));
        assert_eq!(status(long.as_bytes()), Some(431));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(SERVE_HEADERS_MAX + 1));
        assert_eq!(status(many.as_bytes()), Some(431));
    }

    #[test]
    fn any_bytes_pass_through_a_link() {
        let all: Vec<u8> = (0..=255).collect();
        let link = encode(&all);
        assert_eq!(decode(&link), all);
        assert!(link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-_.~".contains(&byte)));
        assert_eq!(decode("%%4"), b"%%4");
    }

    #[test]
    fn a_head_has_the_length_of_the_body_it_leaves_out() {
        let response = Response::text(200, "abc");
        let head = String::from_utf8(response.bytes(true)).unwrap();
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(response.bytes(false), [head.as_bytes(), b"abc\n"].concat());
    }
}
