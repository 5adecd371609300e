//! The relay's certificate, and which certificates callers must show.
//!
//! The whole server configuration is exchanged and not the certificate alone, because the authorities of the callers may
//! change with it; sessions of before can then not be resumed, so whoever comes next is judged by the new files.

use std::{fmt, sync::Arc};

use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    DoorsError,
    kept::{Contents, Kept, Named},
};
use crate::{config::Config, metrics::FileRead};

/// gRPC, and JSON for those who have no HTTP/2.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS on the relay's port.
pub struct Tls(Kept<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// `None`: the settings name no certificate.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, DoorsError> {
        let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
        let named = |setting, path: &std::path::Path| Named { setting, path: path.to_owned() };
        let mut files = vec![named("tls_cert", cert), named("tls_key", key)];
        files.extend(config.tls_client_ca.as_deref().map(|path| named("tls_client_ca", path)));
        Kept::open(files, server_config).map(|kept| Some(Self(kept)))
    }

    pub(super) fn refresh(&self) -> Option<FileRead> {
        self.0.refresh()
    }

    /// What the next handshake goes by.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.get()
    }
}

fn server_config(files: &[Named], contents: Contents) -> Result<ServerConfig, DoorsError> {
    let wrong = |nth: usize, why: String| DoorsError::Tls {
        setting: files[nth].setting,
        path: files[nth].path.clone(),
        why,
    };
    let chain = certificates(&contents[0]).map_err(|why| wrong(0, why))?;
    let key = PrivateKeyDer::from_pem_slice(&contents[1]).map_err(|_| {
        wrong(1, "must be a private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)".to_owned())
    })?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(0, error.to_string()))?;
    let builder = match contents.get(2) {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let verifier = verifier(authorities, &provider).map_err(|why| wrong(2, why))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(0, format!("does not go together with tls_key: {error}")))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let rule = || "must be one or more certificates in PEM".to_owned();
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| rule())?;
    if found.is_empty() { Err(rule()) } else { Ok(found) }
}

fn verifier(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("holds no authority of certificates: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    verifier.build().map(|it| it as _).map_err(|error| error.to_string())
}
