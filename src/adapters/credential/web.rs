//! How issuers are spoken to over HTTP: TLS or loopback only, no redirects, no proxies, small answers, clocks compared.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::IssueError;
use crate::domain::clock::Timestamp;
use crate::domain::text::{shortened, visible};

/// Largest answer of an issuer.
const MOST: usize = 1 << 20;
/// How far an issuer's clock may be off.
const SKEW: i64 = 30;
/// How long an issuer has to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client for one issuer.
#[derive(Clone, Debug)]
pub struct Web {
    client: Client,
    base: Url,
}

/// What an issuer answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    body: Zeroizing<Vec<u8>>,
}

impl Web {
    /// A client for the issuer at `base`; `ca` is a PEM file's text, believed beside the system's roots.
    ///
    /// # Errors
    /// If the address is neither https nor on this machine, or the certificates cannot be read.
    pub fn new(base: &str, ca: Option<&[u8]>) -> Result<Self, String> {
        let base: Url = base.trim_end_matches('/').parse().map_err(|e| format!("`{base}` is not a URL: {e}"))?;
        let near = match base.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if base.scheme() != "https" && !(base.scheme() == "http" && near) {
            return Err(format!("`{base}`: an issuer is reached by https, or by http on this machine"));
        }
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() || base.fragment().is_some() {
            return Err("the address of an issuer has neither user nor query".into());
        }
        let mut client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(20));
        if let Some(pem) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| format!("the certificates of `ca` cannot be read: {e}"))?;
            client = client.tls_certs_merge(certificates);
        }
        Ok(Self { client: client.build().map_err(|e| e.to_string())?, base })
    }

    /// A request to a place below the issuer's address, or at it.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        self.client.request(method, url)
    }

    /// Asks the revocation endpoint that this is the address of to end a token (RFC 7009). `secret` is the client's.
    ///
    /// # Errors
    /// See [`IssueError`]; also if the server does not say that it is done.
    pub async fn revoke(&self, client: &str, secret: Option<&str>, token: &str, hint: &str, now: Timestamp) -> Result<(), IssueError> {
        let mut form = vec![("token", token), ("token_type_hint", hint), ("client_id", client)];
        form.extend(secret.map(|secret| ("client_secret", secret)));
        let reply = self.send(self.request(Method::POST, "").form(&form), now).await?;
        if reply.status.is_success() { Ok(()) } else { Err(IssueError::Refused(format!("it answered {}", reply.status))) }
    }

    /// Where that is, for people.
    pub(super) fn shown(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// The host and port, as a `Host` header has them.
    pub(super) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`IssueError::Refused`] where it certainly did nothing, [`IssueError::Unclear`] where that is not known.
    pub(super) async fn send(&self, request: RequestBuilder, now: Timestamp) -> Result<Reply, IssueError> {
        let mut response = request.send().await.map_err(|error| {
            let why = error.without_url();
            let text = std::iter::successors(Some(&why as &dyn std::error::Error), |e| e.source()).map(ToString::to_string);
            let text = text.collect::<Vec<_>>().join(": ");
            if why.is_connect() || why.is_builder() { IssueError::Refused(text) } else { IssueError::Unclear(text) }
        })?;
        let status = response.status();
        let date = response.headers().get("date").and_then(|v| v.to_str().ok()).and_then(|v| jiff::fmt::rfc2822::parse(v).ok());
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|e| IssueError::Unclear(e.without_url().to_string()))? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return Err(IssueError::Unclear(format!("the answer is longer than {MOST} bytes")));
            }
        }
        let reply = Reply { status, body };
        if let Some(theirs) = date {
            let off = theirs.timestamp().as_second().saturating_sub(now.seconds());
            if off.abs() > SKEW {
                // Lives and deadlines would not mean the same here and there.
                return Err(IssueError::Unclear(format!("its clock and this one differ by {} s, and {SKEW} s is the most", off.abs())));
            }
        }
        Ok(reply)
    }
}

impl Reply {
    /// The body, where the answer is a success.
    ///
    /// # Errors
    /// See [`Reply::refusal`]; and [`IssueError::Unclear`] if the body is not what was expected.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, IssueError> {
        if !self.status.is_success() {
            return Err(self.refusal());
        }
        // What serde says of a body may quote it.
        serde_json::from_slice(&self.body)
            .map_err(|e| IssueError::Unclear(format!("its answer is not as expected ({:?} at byte {})", e.classify(), e.column())))
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// What an answer that is no success means.
    pub(super) fn refusal(&self) -> IssueError {
        let why = format!("{}{}", self.status, self.reason().map(|r| format!(" ({r})")).unwrap_or_default());
        if self.status.is_client_error() || self.status.is_redirection() { IssueError::Refused(why) } else { IssueError::Unclear(why) }
    }

    /// The words that issuers give for a refusal, where they have the usual names.
    pub(super) fn reason(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let mut words = Vec::new();
        for name in ["error", "error_description", "message"] {
            match body.get(name) {
                Some(serde_json::Value::String(text)) => words.push(text.clone()),
                Some(inner) => words.extend(inner.get("message").and_then(|m| m.as_str()).map(str::to_owned)),
                None => {}
            }
        }
        words.extend(body.get("errors").and_then(|e| e.as_array()).into_iter().flatten().filter_map(|e| e.as_str()).map(str::to_owned));
        (!words.is_empty()).then(|| shortened(&visible(&words.join(": ")), 300))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_reached_safely_or_not_at_all() {
        for address in ["http://vault.example.com", "http://10.0.0.1", "ftp://localhost", "https://user:pw@x", "https://x/?a", "nothing"] {
            assert!(Web::new(address, None).is_err(), "{address}");
        }
        for address in ["https://vault.example.com:8200/", "http://127.0.0.1:1", "http://localhost:1/base", "http://[::1]:1"] {
            assert!(Web::new(address, None).is_ok(), "{address}");
        }
    }

    /// Answers every connection with `answer`.
    async fn serving(answer: String) -> Web {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.read(&mut [0; 4096]).await);
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Web::new(&address, None).unwrap()
    }

    #[tokio::test]
    async fn what_an_issuer_must_not_do_is_refused() {
        let now = Timestamp(1_800_000_000_000);
        let answer = |head: &str, body: &str| format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let dated = |seconds: i64| {
            jiff::fmt::rfc2822::to_string(&jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC)).unwrap()
        };
        for (text, part) in [
            (answer(&format!("200 OK\r\ndate: {}", dated(31)), "{}"), "differ by 31 s"),
            (answer(&format!("200 OK\r\ndate: {}", dated(-90)), "{}"), "differ by 90 s"),
            (answer("302 Found\r\nlocation: http://127.0.0.1:1/", "{}"), "302 Found"),
            (answer("200 OK", &" ".repeat(MOST + 1)), "longer than"),
            (answer("200 OK", "{\"token\": \"canary"), "not as expected"),
            (
                answer("400 Bad Request", "{\"error\":\"invalid_scope\",\"error_description\":\"not\\u202e yours\"}"),
                "invalid_scope: not\\u{202E} yours",
            ),
            (answer("503 Service Unavailable", ""), "503"),
            (String::new(), ""),
        ] {
            let web = serving(text).await;
            let come = web.send(web.request(Method::POST, "/"), now).await.and_then(|reply| reply.json::<serde_json::Value>());
            let error = come.unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("canary"), "`{part}` in {error}");
        }
        let web = serving(answer(&format!("200 OK\r\ndate: {}", dated(29)), "{}")).await;
        assert!(web.send(web.request(Method::GET, "/"), now).await.unwrap().json::<serde_json::Value>().is_ok());
        let nobody = Web::new("http://127.0.0.1:1", None).unwrap();
        let refused = nobody.send(nobody.request(Method::GET, "/"), now).await;
        assert!(matches!(refused, Err(IssueError::Refused(_))), "nothing can have been minted");
    }
}
