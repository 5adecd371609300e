//! What a relay says that it is short of.

/// What a condition means, and what to do.
pub(crate) fn meaning(condition: &str) -> &'static str {
    match condition {
        "LOG_UNREACHABLE" => {
            "the relay cannot reach its log; reads go on, writes are refused. Look at the relay's /readyz and its log"
        }
        "EXPIRY_HELD" => {
            "the relay has just started or stood still, so it declares nobody GONE for now. This ends by itself; if \
             it comes back, the relay's machine is overloaded"
        }
        "MASS_LOSS" => {
            "many leases ran out at once, so they are held as SUSPECT. Look for a broken network or a bad deployment"
        }
        "BEHIND" => {
            "this relay has not read its log to the end yet, so what it shows may be old. Wait a moment"
        }
        "STORE_FULL" => "the relay's disk is full; writes are refused. Make room in DORMOUSE_DATA_DIR",
        "LEASES_STRETCHED" => {
            "this relay answers late and grants longer awake leases meanwhile, so ends are noticed later. Look at the \
             load of its machine"
        }
        _ => "this program does not know this condition; update it",
    }
}
