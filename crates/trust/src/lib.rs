//! Which images are admitted: signature policies, signatures, digest pinning, and the administrator's own verifiers.
//!
//! Nothing here fetches anything. A [`Policy`] says which [`Requirements`] an image from a [`Place`] has to meet and what is [`Wanted`] for
//! it; somebody brings the [`Evidence`]; the [`Verdict`] names the rule and the file. Evidence is hostile: nothing in it is believed before
//! its signature is verified, and nothing after that which is not understood.

mod bundle;
mod certificate;
mod claim;
mod der;
mod evidence;
pub mod fuzz;
mod identity;
mod json;
mod key;
mod lookaside;
mod openpgp;
mod payload;
mod pin;
mod place;
mod policy;
mod read;
mod rekor;
mod requirement;
mod verdict;
mod verifier;

pub use certificate::CertificateError;
pub use claim::{SignatureError, Subject};
pub use evidence::{
    Attachment, BUNDLE, COSIGN_PAYLOAD, COSIGN_SIGNATURE, Evidence, Signature, Wanted, limits,
};
pub use json::JsonError;
pub use key::BadKey;
pub use lookaside::{DEFAULT_STORE, Registries, RegistriesError, Store, Stores};
pub use openpgp::{BadKeyring, PgpError};
pub use pin::Pins;
pub use place::Place;
pub use policy::{Policy, PolicyError, Requirements};
pub use rekor::RekorError;
pub use requirement::KeyError;
pub use verdict::{Distrust, Rule, Verdict, Why};
pub use verifier::{Question, VerifierError, Verifiers};
