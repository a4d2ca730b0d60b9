//! JSON values as YAML 1.2 text. Every JSON string is a YAML string in double quotes, so plain style is only used where nothing can be misread.

use serde_json::Value;

/// Returns the value as a YAML document with a final newline.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 0, false);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes `value` at `depth`; `inline` means the cursor stands behind `key:` or `-` on a started line.
fn write_value(out: &mut String, value: &Value, depth: usize, inline: bool) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                start_line(out, depth, inline && index == 0);
                out.push_str(&scalar(key));
                out.push(':');
                write_child(out, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                start_line(out, depth, inline && index == 0);
                out.push('-');
                out.push(' ');
                write_value(out, item, depth + 1, true);
                end_line(out);
            }
        }
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => out.push_str(&scalar(text)),
        other => out.push_str(&other.to_string()),
    }
}

/// Writes what stands behind `key:`.
fn write_child(out: &mut String, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    out.push(if nested { '\n' } else { ' ' });
    write_value(out, value, depth + 1, false);
    end_line(out);
}

fn start_line(out: &mut String, depth: usize, started: bool) {
    if !started {
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

fn end_line(out: &mut String) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

/// A string as a YAML scalar: plain when no reader could take it for anything else, otherwise in double quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

fn is_plain(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let made_well = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-+@ ".contains(c));
    // YAML 1.1 readers, which are still the most, take these for booleans, null and special numbers.
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    starts_well && made_well && !text.ends_with(' ') && !word.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_and_lists_nest() {
        let value = json!({"a": {"b": [1, {"c": "x", "d": []}], "e": {}}, "f": null});
        assert_eq!(to_yaml(&value), "a:\n  b:\n    - 1\n    - c: x\n      d: []\n  e: {}\nf: null\n");
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        let value = json!(["yes", "1.5", "a: b", "- x", "", "0x10", "a\nb", "plain", "docker.io/x:1"]);
        let expected = "- \"yes\"\n- \"1.5\"\n- \"a: b\"\n- \"- x\"\n- \"\"\n- \"0x10\"\n- \"a\\nb\"\n- plain\n- \"docker.io/x:1\"\n";
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn a_list_in_a_list_keeps_its_shape() {
        assert_eq!(to_yaml(&json!([[1, 2], [3]])), "- - 1\n  - 2\n- - 3\n");
    }

    #[test]
    fn a_lone_value_is_a_document() {
        assert_eq!(to_yaml(&json!([])), "[]\n");
        assert_eq!(to_yaml(&json!("x")), "x\n");
    }
}
