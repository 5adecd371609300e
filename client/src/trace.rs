//! The trace that a call belongs to, as platforms name it and as the relay reads it.

use tonic::metadata::{Ascii, MetadataValue};

/// A `traceparent` out of one, or out of the header that AWS X-Ray gives an invocation; `None` for anything else.
pub(crate) fn parent(text: &str) -> Option<MetadataValue<Ascii>> {
    let parent = from_x_ray(text).or_else(|| is_traceparent(text).then(|| text.to_owned()))?;
    parent.parse().ok()
}

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`, in any order.
fn from_x_ray(text: &str) -> Option<String> {
    let field = |name: &str| text.split(';').find_map(|it| it.trim().strip_prefix(name)?.strip_prefix('='));
    let (root, span) = (field("Root")?, field("Parent")?);
    let [version, time, rest] = root.split('-').collect::<Vec<_>>()[..] else { return None };
    let sampled = if field("Sampled") == Some("1") { "01" } else { "00" };
    let is_whole = version == "1" && is_hex(time, 8) && is_hex(rest, 24) && is_hex(span, 16);
    is_whole.then(|| format!("00-{time}{rest}-{span}-{sampled}"))
}

fn is_traceparent(text: &str) -> bool {
    let [version, trace, span, flags] = text.split('-').collect::<Vec<_>>()[..] else { return false };
    version == "00" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        parent(text).map(|it| it.to_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_traceparent_goes_on_as_it_is() {
        let ours = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(ours).as_deref(), Some(ours));
    }

    #[test]
    fn what_x_ray_says_becomes_one() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0";
        let parent = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        assert_eq!(read(header).as_deref(), Some(parent));
        let quiet = "Sampled=0; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793";
        assert_eq!(read(quiet), Some(parent.replace("-01", "-00")));
    }

    #[test]
    fn anything_else_is_none() {
        let short = "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01";
        let no_parent = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
        let upper = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";
        for bad in ["", "Root=", short, no_parent, upper, "00-a-b-c"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
