//! The files: made anew, compared, or rewritten.

use std::path::PathBuf;

use serde_json::Value;

const WRITE: &str = "ROTACAST_WRITE_VECTORS";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)
}

/// The checked-in vectors of one file.
pub(crate) fn read(name: &str) -> Vec<Value> {
    let path = path(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut file: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match file["vectors"].take() {
        Value::Array(vectors) if !vectors.is_empty() => vectors,
        _ => panic!("{}: no vectors", path.display()),
    }
}

/// Compares a file with vectors just made, or writes it and fails.
pub(crate) fn hold(name: &str, about: &str, made: &[Value]) {
    if std::env::var_os(WRITE).is_some() {
        let file = serde_json::json!({ "about": about, "contract": "rotacast.v1", "vectors": made });
        let mut text = serde_json::to_string_pretty(&file).unwrap();
        text.push('\n');
        std::fs::write(path(name), text).unwrap();
        panic!("{name} is written anew: look at the difference, then run without {WRITE}");
    }
    let kept = read(name);
    for (kept, made) in kept.iter().zip(made) {
        assert_eq!(kept, made, "{name}: vector {} differs from what this build makes", made["name"]);
    }
    assert_eq!(kept.len(), made.len(), "{name}: number of vectors");
}

/// A text field of a vector.
pub(crate) fn text<'v>(vector: &'v Value, field: &str) -> &'v str {
    vector[field].as_str().unwrap_or_else(|| panic!("{}: no text field {field}", vector["name"]))
}

/// A field of hexadecimal bytes.
pub(crate) fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(vector, field)).unwrap_or_else(|error| panic!("{}: {field}: {error}", vector["name"]))
}

/// The `headers` of a vector.
pub(crate) fn headers(vector: &Value) -> Vec<(&str, &str)> {
    let headers = vector["headers"].as_object().unwrap_or_else(|| panic!("{}: no headers", vector["name"]));
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}
