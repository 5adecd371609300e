//! Which relay, how to be sure that it is the right one, and who calls.

use std::{fmt, fs};

use dormouse_proto::ids::Namespace;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    config::{Env, invalid, var},
    error::ConfigError,
};

/// What is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// What both kinds of callers need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) url: Option<String>,
    pub(crate) token: Option<Secret>,
    pub(crate) ca: Option<String>,
    pub(crate) client_cert: Option<String>,
    pub(crate) client_key: Option<Secret>,
    pub(crate) insecure: bool,
    pub(crate) namespace: Option<String>,
}

impl Target {
    const URL: &str = "http://127.0.0.1:7400";

    pub(crate) fn from_env(env: Env<'_>) -> Result<Self, ConfigError> {
        let url = var(env, "DORMOUSE_URL");
        let platform = ["AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE"];
        if url.is_none()
            && let Some(set) = platform.iter().find(|key| var(env, key).is_some())
        {
            let rule = format!("required inside a function ({set} is set): no relay runs on this machine");
            return Err(ConfigError::new("DORMOUSE_URL", rule));
        }
        let insecure = match var(env, "DORMOUSE_INSECURE").as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => return Err(ConfigError::new("DORMOUSE_INSECURE", "must be 1 or 0, true or false")),
        };
        Ok(Self {
            url,
            token: var(env, "DORMOUSE_TOKEN").map(Secret),
            ca: var(env, "DORMOUSE_CA"),
            client_cert: var(env, "DORMOUSE_CLIENT_CERT"),
            client_key: var(env, "DORMOUSE_CLIENT_KEY").map(Secret),
            insecure,
            namespace: var(env, "DORMOUSE_NAMESPACE"),
        })
    }

    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(Self::URL)
    }

    /// The namespace as requests carry it; empty: the token's own.
    pub(crate) fn checked_namespace(&self) -> Result<String, ConfigError> {
        let checked = self.namespace.clone().map(Namespace::try_from).transpose();
        let checked = checked.map_err(invalid("DORMOUSE_NAMESPACE"))?;
        Ok(checked.map_or_else(String::new, String::from))
    }

    /// The token as requests carry it.
    pub(crate) fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, ConfigError> {
        let Some(Secret(token)) = &self.token else { return Ok(None) };
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| ConfigError::new("DORMOUSE_TOKEN", "must be visible ASCII"))?;
        bearer.set_sensitive(true);
        Ok(Some(bearer))
    }

    /// Where to connect to. Files are read, and nothing is contacted.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        let wrong = |rule: &str| ConfigError::new("DORMOUSE_URL", rule);
        let url = self.url();
        let is_tls = url.starts_with("https://");
        if !is_tls && !url.starts_with("http://") {
            return Err(wrong("must begin with http:// or https://"));
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong("must be a URL"))?;
        let endpoint = endpoint.tcp_nodelay(true);
        if is_tls {
            let unusable = |error: tonic::transport::Error| {
                ConfigError::new("DORMOUSE_CA", format!("makes no TLS for {url}: {}", causes(&error)))
            };
            return endpoint.tls_config(self.tls()?).map_err(unusable);
        }
        self.check_plaintext(endpoint.uri().host().unwrap_or_default())?;
        Ok(endpoint)
    }

    fn check_plaintext(&self, host: &str) -> Result<(), ConfigError> {
        for (key, is_set) in [
            ("DORMOUSE_CA", self.ca.is_some()),
            ("DORMOUSE_CLIENT_CERT", self.client_cert.is_some()),
            ("DORMOUSE_CLIENT_KEY", self.client_key.is_some()),
        ] {
            if is_set {
                return Err(ConfigError::new(
                    key,
                    "is for an https:// relay, and DORMOUSE_URL begins with http://",
                ));
            }
        }
        if self.token.is_some() && !self.insecure && !is_this_machine(host) {
            let rule = format!(
                "would travel to {host} in the clear: use https://, or set DORMOUSE_INSECURE=1 if the network is closed by \
                 other means"
            );
            return Err(ConfigError::new("DORMOUSE_TOKEN", rule));
        }
        Ok(())
    }

    /// The roots are compiled in: to read those of the machine costs a small function hundreds of milliseconds.
    fn tls(&self) -> Result<ClientTlsConfig, ConfigError> {
        let tls = match &self.ca {
            None => ClientTlsConfig::new().with_webpki_roots(),
            Some(ca) => {
                let pem = pem_of("DORMOUSE_CA", ca)?;
                if !pem.contains("-----BEGIN CERTIFICATE-----") {
                    return Err(ConfigError::new("DORMOUSE_CA", "holds no certificate in PEM"));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        match (&self.client_cert, &self.client_key) {
            (None, None) => Ok(tls),
            (Some(cert), Some(Secret(key))) => {
                let cert = pem_of("DORMOUSE_CLIENT_CERT", cert)?;
                Ok(tls.identity(Identity::from_pem(cert, pem_of("DORMOUSE_CLIENT_KEY", key)?)))
            }
            (Some(_), None) => {
                Err(ConfigError::new("DORMOUSE_CLIENT_KEY", "belongs to DORMOUSE_CLIENT_CERT: set both"))
            }
            (None, Some(_)) => {
                Err(ConfigError::new("DORMOUSE_CLIENT_CERT", "belongs to DORMOUSE_CLIENT_KEY: set both"))
            }
        }
    }
}

/// PEM as a setting has it: itself, or the path of a file.
fn pem_of(key: &'static str, setting: &str) -> Result<String, ConfigError> {
    if setting.contains("-----BEGIN ") {
        return Ok(setting.to_owned());
    }
    fs::read_to_string(setting).map_err(|error| {
        // What stands there may be a key whose first line was lost on the way here.
        ConfigError::new(key, format!("is neither PEM nor the path of a file that can be read: {error}"))
    })
}

fn causes(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), causes)
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(vars: &[(&str, &str)]) -> String {
        let env =
            |key: &str| vars.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        let endpoint = Target::from_env(&env).and_then(|target| target.endpoint());
        endpoint.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn a_token_travels_in_the_clear_only_where_nobody_listens_or_when_told_to() {
        for url in
            ["http://127.0.0.1:7400", "http://localhost:1", "http://[::1]:7400", "https://relay.example"]
        {
            assert_eq!(
                refused(&[("DORMOUSE_URL", url), ("DORMOUSE_TOKEN", "dm_hidden")]),
                "accepted",
                "{url}"
            );
        }
        for url in
            ["http://relay.example:7400", "http://10.0.0.1", "http://localhost.example", "http://[::2]:1"]
        {
            let told = [("DORMOUSE_URL", url), ("DORMOUSE_TOKEN", "dm_hidden"), ("DORMOUSE_INSECURE", "1")];
            let refused_with_token = refused(&told[..2]);
            assert!(
                refused_with_token.starts_with("DORMOUSE_TOKEN: would travel to "),
                "{refused_with_token}"
            );
            assert!(!refused_with_token.contains("hidden"));
            assert_eq!(refused(&told), "accepted");
            assert_eq!(refused(&told[..1]), "accepted", "without a token there is nothing to lose");
        }
    }

    #[test]
    fn an_authority_is_a_path_or_the_text_itself() {
        let https = ("DORMOUSE_URL", "https://relay.example");
        assert_eq!(refused(&[https]), "accepted", "the roots are compiled in");
        let gone = refused(&[https, ("DORMOUSE_CA", "/nowhere/ca.pem")]);
        assert!(
            gone.starts_with("DORMOUSE_CA: is neither PEM nor the path of a file that can be read"),
            "{gone}"
        );
        let key = refused(&[https, ("DORMOUSE_CA", "-----BEGIN PRIVATE KEY-----\nhidden")]);
        assert_eq!(key, "DORMOUSE_CA: holds no certificate in PEM");
        let broken = refused(&[https, ("DORMOUSE_CA", "-----BEGIN CERTIFICATE-----\n!")]);
        assert!(broken.starts_with("DORMOUSE_CA: "), "{broken}");
    }

    #[test]
    fn what_makes_no_sense_together_is_refused_by_its_name() {
        let (http, https) = (("DORMOUSE_URL", "http://127.0.0.1:1"), ("DORMOUSE_URL", "https://relay"));
        let (cert, key) = (("DORMOUSE_CLIENT_CERT", "c"), ("DORMOUSE_CLIENT_KEY", "k"));
        assert!(refused(&[http, ("DORMOUSE_CA", "x")]).starts_with("DORMOUSE_CA: is for an https:// relay"));
        assert!(refused(&[http, cert]).starts_with("DORMOUSE_CLIENT_CERT: is for"));
        assert!(refused(&[https, cert]).starts_with("DORMOUSE_CLIENT_KEY: belongs to"));
        assert!(refused(&[https, key]).starts_with("DORMOUSE_CLIENT_CERT: belongs to"));
        assert!(refused(&[("DORMOUSE_INSECURE", "yes")]).starts_with("DORMOUSE_INSECURE: must be"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let target = Target {
            token: Some(Secret::new("dm_hidden")),
            client_key: Some(Secret::new("hidden")),
            ..Target::default()
        };
        assert!(!format!("{target:?} {:?}", target.bearer()).contains("hidden"));
    }
}
