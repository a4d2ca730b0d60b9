//! The challenges of a `WWW-Authenticate` header (RFC 9110, section 11.6.1). Pure.

/// One challenge: its scheme in lower case, and its parameters with their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a header's value, which may hold several challenges. What cannot be read ends it; what was read before counts.
pub(crate) fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = value.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() && challenges.len() < 16 {
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start_matches([' ', '\t']);
        // A word before '=' is a parameter of the challenge that went before, any other begins a challenge.
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(after), Some(challenge)) => {
                let Some((value, after)) = parameter(after.trim_start_matches([' ', '\t'])) else { break };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A value, quoted or not, and what follows it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_real_registries() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].scheme, "bearer");
        assert_eq!(hub[0].get("scope"), Some("repository:a/b:pull,push"));
        let two = parse(r#"Basic realm="a \"b\", c" , bearer Realm=https://x/y, service=z"#);
        assert_eq!(two.len(), 2);
        assert_eq!(two[0].get("realm"), Some("a \"b\", c"));
        assert_eq!((two[1].get("realm"), two[1].get("service")), (Some("https://x/y"), Some("z")));
        assert_eq!(parse("Negotiate, Basic realm=x").len(), 2);
        assert!(parse("").is_empty() && parse("=x").is_empty() && parse("\u{e9}").is_empty());
        assert_eq!(parse("Bearer realm=\"unclosed").first().and_then(|c| c.get("realm")), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-zA-Z\"\\\\=, \u{e9}\t]{0,60}") {
            let _ = parse(&text);
        }
    }
}
