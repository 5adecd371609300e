//! Why a relay is not reached, as far as trying tells, and what to do about it.

use std::time::Duration;

use dormouse::Reason;

use super::{Finding, Level};
use crate::{args::Target, failure::Failure};

/// How long somebody who may not be there is waited for.
const PROBE: Duration = Duration::from_secs(2);

/// What each cause of a failed handshake is called by the TLS library, what it means, and what to do.
const CAUSES: &[(&[&str], &str)] = &[
    (
        &["UnknownIssuer", "BadSignature"],
        "its certificate is of an authority that is not known here: set DORMOUSE_CA (or --ca) to that authority's certificate, \
         as a path or as the PEM text itself",
    ),
    (
        &["certificate expired", "Expired"],
        "its certificate has expired, or this machine's clock is wrong: renew the files of DORMOUSE_TLS_CERT and \
         DORMOUSE_TLS_KEY; the relay takes them without a restart",
    ),
    (
        &["not valid yet", "NotValidYet"],
        "its certificate is not valid yet: compare this machine's clock with the relay's",
    ),
    (
        &["not valid for name", "NotValidForName"],
        "its certificate is for another name: call it by a name that the certificate has, or have one made for this name",
    ),
    (
        &["CaUsedAsEndEntity"],
        "its certificate is that of an authority (CA:TRUE), and no relay's: have one signed by it; openssl makes one that needs no \
         authority with -addext basicConstraints=critical,CA:FALSE",
    ),
];

/// What keeps this target from answering, if anything more can be said than that it does not.
pub(super) async fn diagnosed(target: &Target, reason: &Reason) -> Option<(Finding, Failure)> {
    let url = target.url();
    match reason {
        Reason::NotReached(why) => {
            let told = CAUSES.iter().find(|(words, _)| words.iter().any(|word| why.contains(word)));
            if let Some((_, cure)) = told {
                return Some((
                    fail(format!("{url}: {cure}")),
                    Failure::Refused(format!("{url} is not trusted: {why}")),
                ));
            }
            other_scheme(target).await.or_else(|| hung_up(target, why))
        }
        Reason::Refused { word, .. } => {
            let cure = match word.as_str() {
                "TOKEN_MISSING" => "the relay asks for a token: set DORMOUSE_TOKEN (or --token)",
                "TOKEN_UNKNOWN" => {
                    "the relay does not know this token: whoever runs it makes one with `dormouse token new`, and puts its line \
                     into the file of DORMOUSE_TOKENS_FILE"
                }
                _ => return None,
            };
            Some((fail(format!("{url}: {cure}")), Failure::from(reason.clone())))
        }
        _ => None,
    }
}

/// With TLS 1.3 a relay that does not like a caller's certificate says so when that one's handshake is over already, and
/// what is heard of it is at best an alert, at worst the end of the connection.
fn hung_up(target: &Target, why: &str) -> Option<(Finding, Failure)> {
    let url = target.url();
    let told = ["alert", "closed", "reset", "Broken pipe"].iter().any(|word| why.contains(word));
    if !url.starts_with("https://") || !told {
        return None;
    }
    let cure = if target.shows_a_certificate() {
        "it hangs up right after the handshake, so it does not accept the certificate of DORMOUSE_CLIENT_CERT: that must be of an \
         authority in its DORMOUSE_TLS_CLIENT_CA"
    } else {
        "it hangs up right after the handshake, so it asks callers for a certificate: set DORMOUSE_CLIENT_CERT and \
         DORMOUSE_CLIENT_KEY"
    };
    Some((fail(format!("{url}: {cure}")), Failure::Refused(format!("{url} does not let us in: {why}"))))
}

fn fail(text: String) -> Finding {
    Finding(Level::Fail, text)
}

/// Whether somebody answers there in the other language. The token stays here: it may not be the relay who answers.
async fn other_scheme(target: &Target) -> Option<(Finding, Failure)> {
    let url = target.url();
    let (other, says) = match url.split_once("://")? {
        ("https", host) => (format!("http://{host}"), "is https, but the relay there speaks plaintext"),
        ("http", host) => (format!("https://{host}"), "is http, but the relay there speaks TLS"),
        _ => return None,
    };
    let probe = target.stranger_at(other.clone()).builder().timeout(PROBE).build().ok()?;
    let answers = match probe.info().await {
        Ok(_) | Err(Reason::Refused { .. }) => true,
        // To judge a certificate, one must have been shown it.
        Err(Reason::NotReached(why)) => {
            why.contains("certificate") || why.contains("alert: CertificateRequired")
        }
        Err(_) => false,
    };
    let usage = "nothing else was examined: DORMOUSE_URL or --url names the wrong scheme".to_owned();
    answers.then(|| (fail(format!("{url} {says}: set DORMOUSE_URL={other}")), Failure::Usage(usage)))
}
