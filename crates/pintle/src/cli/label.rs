//! Labels on the command line: as something to set and as something to filter by.

use std::collections::BTreeMap;
use std::str::FromStr;

/// `KEY=VALUE`, or `KEY` alone: any value when filtering, an empty one when setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub key: String,
    pub value: Option<String>,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Label, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        match key {
            "" => Err("a label needs a name: KEY or KEY=VALUE".into()),
            key => Ok(Label { key: key.to_owned(), value }),
        }
    }
}

/// Whether an object with `present` labels meets every one of the `wanted`.
pub(crate) fn matches(wanted: &[Label], present: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|label| match present.get(&label.key) {
        Some(value) => label.value.as_ref().is_none_or(|wanted| wanted == value),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_a_value_matches_any_value() {
        let present = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let labels = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Label>>();
        assert!(matches(&labels(&["app"]), &present));
        assert!(matches(&labels(&["app=web"]), &present));
        assert!(!matches(&labels(&["app="]), &present));
        assert!(!matches(&labels(&["app", "tier"]), &present));
        assert!("=x".parse::<Label>().is_err());
    }
}
