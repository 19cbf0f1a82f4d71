//! TLS at the door, and what a client's certificate says of it. Certificates of clients are verified where one is shown;
//! nobody needs one to reach the inbox, and without one a caller needs a token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::config::{Config, TlsFile};
use crate::domain::digest::Digest;
use crate::downstream::http::Connection;
use crate::downstream::identity::PeerCertificate;

/// How long a client has to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How many may be saying hello at once.
const MOST: usize = 1024;

/// What accepts connections.
pub(super) fn acceptor(config: &Config, file: &TlsFile) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let read = |path: &std::path::Path| {
        let path = config.base().join(path);
        let failed = |e: rustls::pki_types::pem::Error| format!("{}: {e}", path.display());
        let all = CertificateDer::pem_file_iter(&path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        if all.is_empty() { Err(format!("{}: there is no certificate in it", path.display())) } else { Ok(all) }
    };
    let chain = read(&file.certificate)?;
    let place = config.base().join(&file.key);
    let key = PrivateKeyDer::from_pem_file(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    let server = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let server = match &file.client_ca {
        None => server.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read(path)? {
                roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated().build();
            server.with_client_cert_verifier(verifier.map_err(|e| e.to_string())?)
        }
    };
    let mut server = server.with_single_cert(chain, key).map_err(|e| e.to_string())?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

type Hello = std::pin::Pin<Box<dyn Future<Output = Option<TlsStream<TcpStream>>> + Send>>;

/// Connections whose TLS is set up. Who is slow to say hello does not hold up others.
pub(super) struct TlsListener<L> {
    listener: L,
    acceptor: TlsAcceptor,
    greeting: FuturesUnordered<Hello>,
}

impl<L> TlsListener<L> {
    pub(super) fn new(listener: L, acceptor: TlsAcceptor) -> Self {
        Self { listener, acceptor, greeting: FuturesUnordered::new() }
    }
}

impl<L: Listener<Io = TcpStream, Addr = SocketAddr>> Listener for TlsListener<L> {
    type Io = TlsStream<TcpStream>;
    type Addr = Connection;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, _) = self.listener.accept(), if self.greeting.len() < MOST => {
                    let hello = self.acceptor.accept(stream);
                    self.greeting.push(Box::pin(async move { tokio::time::timeout(HELLO, hello).await.ok()?.ok() }));
                }
                Some(done) = self.greeting.next(), if !self.greeting.is_empty() => {
                    if let Some(stream) = done {
                        let connection = Connection { certificate: shown(&stream) };
                        return (stream, connection);
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Connection::default())
    }
}

/// What the client's certificate says; it was verified.
fn shown(stream: &TlsStream<TcpStream>) -> Option<PeerCertificate> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = parsed.valid_uri_names();
    let uri = names.next().filter(|_| names.next().is_none()).map(str::to_owned);
    Some(PeerCertificate { uri, thumbprint: URL_SAFE_NO_PAD.encode(Digest::of(certificate).bytes()) })
}
