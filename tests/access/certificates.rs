//! Certificates that are made for one test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

/// An authority that nobody knows but who is told of it.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // By its name it is told which authority has signed.
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", fastrand::u64(..)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("signed");
        Certified { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// For a relay on this machine.
    pub(crate) fn relay(&self) -> Certified {
        self.sign(&names())
    }

    /// The same, but its time is over.
    pub(crate) fn expired_relay(&self) -> Certified {
        let mut params = names();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    /// For a relay that is called otherwise.
    pub(crate) fn other_relay(&self) -> Certified {
        self.sign(&CertificateParams::new(vec!["relay.example".to_owned()]).expect("a name"))
    }

    /// What somebody takes for a relay's who has not made one.
    pub(crate) fn itself(&self) -> Certified {
        Certified { cert: self.pem(), key: self.0.key().serialize_pem() }
    }

    /// For somebody who calls.
    pub(crate) fn caller(&self) -> Certified {
        let mut params = CertificateParams::new(vec!["caller".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }
}

fn names() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names")
}
