//! The committed wire code is what the .proto files say, so that nobody needs `protoc` to build.
//!
//! `DORMOUSE_REGENERATE=1 cargo test -p dormouse-proto --all-features --test generated` writes it anew.

use std::{error::Error, fs, path::Path};

use prost::Message as _;

/// What is served.
const SERVED: [&str; 4] = [
    "dormouse/v1/lattice.proto",
    "dormouse/v1/mailbox.proto",
    "dormouse/v1/membership.proto",
    "dormouse/v1/operations.proto",
];
/// What is stored.
const STORED: [&str; 3] =
    ["dormouse/log/v1/record.proto", "dormouse/log/v1/snapshot.proto", "dormouse/log/v1/backup.proto"];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn generate(into: &Path) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(SERVED.iter().chain(&STORED).map(|file| root.join(file)), [root])?;

    let served = protox::compile(SERVED.map(|file| root.join(file)), [root])?;
    fs::write(into.join("descriptor.bin"), served.encode_to_vec())?;

    tonic_prost_build::configure()
        .build_server(false)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .bytes(".")
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(into)
        .compile_fds(files)?;

    // The relay answers with rows that are encoded already, so its services answer with other types.
    let services = into.join("services");
    fs::create_dir(&services)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .extern_path(".dormouse.v1", "crate::wire::v1")
        .extern_path(".dormouse.v1.SyncResponse", "crate::wire::encoded::SyncResponse")
        .extern_path(".dormouse.v1.WatchResponse", "crate::wire::encoded::WatchResponse")
        .extern_path(".dormouse.v1.WatchMembersResponse", "crate::wire::encoded::WatchMembersResponse")
        .out_dir(&services)
        .compile_fds(served)?;
    fs::rename(services.join("dormouse.v1.rs"), into.join("dormouse.v1.services.rs"))?;
    fs::remove_dir_all(services)?;
    Ok(())
}

#[test]
fn the_committed_wire_code_is_what_the_proto_files_say() -> Outcome<()> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire");
    let fresh = std::env::temp_dir().join(format!("dormouse-generated-{}", std::process::id()));
    fs::create_dir_all(&fresh)?;
    generate(&fresh)?;
    for name in ["dormouse.v1.rs", "dormouse.log.v1.rs", "dormouse.v1.services.rs", "descriptor.bin"] {
        let generated = fs::read(fresh.join(name))?;
        if std::env::var_os("DORMOUSE_REGENERATE").is_some() {
            fs::write(committed.join(name), &generated)?;
        }
        assert!(
            fs::read(committed.join(name)).ok().as_ref() == Some(&generated),
            "src/wire/{name} is not what the .proto files say; run this test with DORMOUSE_REGENERATE=1"
        );
    }
    fs::remove_dir_all(fresh)?;
    Ok(())
}
