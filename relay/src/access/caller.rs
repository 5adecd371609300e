//! Who calls, as far as the token says, and which namespace that opens.

use std::sync::Arc;

use dormouse_proto::ids::Namespace;

use super::{Hash, Role};

/// Where a token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In one namespace.
    One(Namespace),
    /// In all of them; only admins.
    All,
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Of its token.
    pub hash: Hash,
    /// Where it is good.
    pub scope: Scope,
    /// What it may do there.
    pub role: Role,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The relay asks nobody who they are.
    Anybody,
    /// Somebody with a token.
    Holder(Arc<Holder>),
}

/// The request names a namespace that its token does not open. Whether there is such a namespace is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The one that it opens.
    pub own: Namespace,
}

impl Caller {
    /// Whether every namespace is open to it.
    pub fn admits_all(&self) -> bool {
        match self {
            Self::Holder(holder) => matches!(holder.scope, Scope::All),
            Self::Anybody => true,
        }
    }

    /// Whether a request that names this namespace may go on; empty: the caller's own.
    ///
    /// # Errors
    /// [`Denied`] whatever else may be wrong with the name.
    pub fn admits(&self, asked: &str) -> Result<(), Denied> {
        match self {
            Self::Holder(holder) => match &holder.scope {
                Scope::One(own) if !asked.is_empty() && asked != own.as_str() => {
                    Err(Denied { own: own.clone() })
                }
                Scope::One(_) | Scope::All => Ok(()),
            },
            Self::Anybody => Ok(()),
        }
    }

    /// The namespace of a request that names none: the token's, or `default`.
    pub fn own(&self) -> Namespace {
        match self {
            Self::Holder(holder) => match &holder.scope {
                Scope::One(own) => own.clone(),
                Scope::All => Namespace::default(),
            },
            Self::Anybody => Namespace::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(scope: Scope) -> Caller {
        Caller::Holder(Arc::new(Holder { hash: Hash::of(b"t"), scope, role: Role::Admin }))
    }

    #[test]
    fn a_token_opens_its_own_namespace_and_no_other() {
        let shop: Namespace = "shop".parse().expect("valid");
        let caller = holder(Scope::One(shop.clone()));
        assert_eq!((caller.admits(""), caller.admits("shop")), (Ok(()), Ok(())));
        for asked in ["ads", "default", "Shop", "shop ", "*"] {
            assert_eq!(caller.admits(asked), Err(Denied { own: shop.clone() }), "{asked}");
        }
        assert_eq!(caller.own(), shop);
        assert!(!caller.admits_all() && holder(Scope::All).admits_all());
    }

    #[test]
    fn without_tokens_and_for_the_admin_of_all_every_namespace_is_open() {
        for caller in [Caller::Anybody, holder(Scope::All)] {
            assert_eq!((caller.admits("ads"), caller.own()), (Ok(()), Namespace::default()));
            assert!(caller.admits_all());
        }
    }
}
