//! The small clients on the internet: a relay with a certificate of an authority of one's own, and tokens.

use std::{fmt::Write as _, fs, process::Command};

use crate::{
    certificates::Authority,
    is_there,
    relay::{Outcome, RelayProcess},
};

const TOKEN: &str = "dm_small-clients";
const PYTHON: &str = "
import dormouse
node = dormouse.Node()
with node.wake(5) as awake:
    assert awake.freshness().state == 'current', awake.freshness()
    awake.counter('ads/shown').add(2)
    print(awake.sleep().state)
";
const NODE: &str = "
import { Node } from './dormouse.mjs';
const awake = await new Node().wake(5000);
if (awake.freshness().state !== 'current') throw new Error(JSON.stringify(awake.freshness()));
awake.counter('ads/shown').add(3);
console.log((await awake.sleep()).state);
";

/// What a program says beside a client's files; the second one is whether it went well.
fn run(client: &str, command: &mut Command, env: &[(&str, &str)]) -> Outcome<(String, bool)> {
    let folder = format!("{}/../client/{client}", env!("CARGO_MANIFEST_DIR"));
    let output =
        command.current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1").envs(env.iter().copied()).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.success()))
}

#[test]
fn a_relay_with_a_certificate_and_tokens_serves_the_small_clients() -> Outcome {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new();
    let certified = authority.relay();
    let put = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).map(|()| path.to_string_lossy().into_owned())
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, TOKEN.as_bytes());
    let hash = digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let (ca, cert, key) =
        (put("ca", &authority.pem())?, put("cert", &certified.cert)?, put("key", &certified.key)?);
    let tokens = put("tokens", &format!("sha256:{hash} shop node\n"))?;
    let relay = RelayProcess::start(&[
        ("DORMOUSE_TLS_CERT", &cert),
        ("DORMOUSE_TLS_KEY", &key),
        ("DORMOUSE_TOKENS_FILE", &tokens),
    ])?;
    let url = relay.url().replace("http://127.0.0.1", "https://localhost");
    let trusting = [("DORMOUSE_URL", url.as_str()), ("DORMOUSE_CA", &ca), ("DORMOUSE_TOKEN", TOKEN)];
    for (client, program, arguments) in
        [("python", "python3", &["-c", PYTHON][..]), ("node", "node", &["--input-type=module", "-e", NODE])]
    {
        if !is_there(program, "a small client under TLS") {
            continue;
        }
        let (said, went_well) = run(client, Command::new(program).args(arguments), &trusting)?;
        assert!(went_well && !said.to_lowercase().contains("unsaved"), "{program}: {said}");
        // Without the authority it never says its token, and without the token it is not let in.
        for without in ["DORMOUSE_CA", "DORMOUSE_TOKEN"] {
            let env: Vec<_> = trusting.into_iter().filter(|(name, _)| *name != without).collect();
            let (said, went_well) = run(client, Command::new(program).args(arguments), &env)?;
            assert!(!went_well && !said.contains(TOKEN), "{program} without {without}: {said}");
        }
    }
    Ok(())
}
