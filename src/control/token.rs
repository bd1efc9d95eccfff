//! Join tokens: what a new node needs to trust the cluster, and the cluster to trust it.

use std::fmt;
use std::str::FromStr;

use super::tls::Fingerprint;
use crate::api::{ApiError, Code};
use crate::cluster::TokenHash;
use crate::units::Name;

/// A token: `blkrep1-<fingerprint><secret>-<node>`, both in hexadecimal of small letters. The secret is the node's proof that it was invited, once;
/// the fingerprint is what it knows the cluster by.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Of the cluster's authority.
    pub fingerprint: Fingerprint,
    /// 128 random bits.
    pub secret: [u8; 16],
    /// The node that was invited.
    pub node: Name,
}

const PREFIX: &str = "blkrep1-";

impl Token {
    /// What the cluster remembers of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.secret)
    }

    /// As it is handed to an operator: the one place where the secret is shown.
    pub fn reveal(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("{PREFIX}{}{}-{}", hex(&self.fingerprint.0), hex(&self.secret), self.node)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("node", &self.node).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        // The text is not repeated in the message: it may be nearly right.
        let bad = || {
            ApiError::new(Code::Denied, "this is no join token, or not all of one")
                .hint("copy it whole from what `blkrep add-node` or `blkrep howto-join` printed")
        };
        let text = text.trim();
        let (hex, node) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or_else(bad)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| bad())?;
        }
        let (mut fingerprint, mut secret) = ([0; 16], [0; 16]);
        fingerprint.copy_from_slice(&bytes[..16]);
        secret.copy_from_slice(&bytes[16..]);
        let token = Self { fingerprint: Fingerprint(fingerprint), secret, node: node.parse().map_err(|_| bad())? };
        // A token has one text: no capitals, no signs. What differs from what was printed was not copied from it.
        if token.reveal() == text { Ok(token) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_nothing_less_does() {
        let node: Name = "web-1.example_x".parse().unwrap();
        let token = Token { fingerprint: Fingerprint([0xab; 16]), secret: [7; 16], node };
        let text = token.reveal();
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        for kept in [0, 8, 40, 72, 73] {
            assert!(text[..kept].parse::<Token>().is_err(), "the first {kept} characters");
        }
        assert!(text.replace("blkrep1", "blkrep2").parse::<Token>().is_err());
        for (found, other) in [("ab", "aB"), ("ab", "AB"), ("07", "+7"), ("07", "7")] {
            assert!(text.replacen(found, other, 1).parse::<Token>().is_err(), "'{other}' for '{found}'");
        }
        assert!(!format!("{token:?}").contains("0707"));
    }
}
