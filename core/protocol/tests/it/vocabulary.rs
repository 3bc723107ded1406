//! The vocabulary in the whole repository: `docs/glossary.md` is written from the enums, and no file spells a word in a second
//! way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rotacast_protocol::word::{self, vocabulary};

/// Set to anything, it writes the glossary instead of comparing it.
const UPDATE: &str = "ROTACAST_UPDATE";
const BEGIN: &str = "<!-- From the enums: written by the test, not by hand. -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The part of the glossary that the enums give.
fn sets() -> String {
    let mut text = String::new();
    for set in vocabulary() {
        let title = set.noun[..1].to_uppercase() + &set.noun[1..];
        text += &format!("\n### {title}\n\n| for machines | for people | what it means |\n|---|---|---|\n");
        for word in set.words {
            text += &format!("| `{}` | {} | {} |\n", word.name, word.words, word.meaning);
        }
    }
    text
}

#[test]
fn the_glossary_is_what_the_enums_say() {
    let path = root().join("docs/glossary.md");
    let found = fs::read_to_string(&path).unwrap();
    let (by_hand, _) = found.split_once(BEGIN).expect("the glossary has the mark after which the test writes");
    let expected = format!("{by_hand}{BEGIN}\n{}", sets());
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/glossary.md differs from the enums: {UPDATE}=1 cargo test -p rotacast-protocol glossary"
    );
}

#[test]
fn the_dashboards_words_keep_the_order_of_the_enums() {
    let script = word::script();
    let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text} in {script}"));
    assert!(at("export const STAGE") < at("\"seen\":{") && at("\"seen\":{") < at("\"prepared\":{\"words\""));
}

/// What people and programs read in a file. Identifiers of code are left out: the language gives them their spelling.
fn read(path: &Path, text: &str) -> Vec<String> {
    let lines = text.lines();
    match path.extension().and_then(|it| it.to_str()) {
        Some("md") => lines.map(|line| without_paths(line, "::")).collect(),
        Some("proto") => lines.filter_map(|line| Some(line.split_once("//")?.1.to_owned())).collect(),
        Some("rs" | "js") => lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(ToOwned::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Without the words that a path of code such as `Phase::RollingBack` holds.
fn without_paths(line: &str, separator: &str) -> String {
    line.split([' ', '`', '(', ')']).filter(|word| !word.contains(separator)).collect::<Vec<_>>().join(" ")
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').filter(|it| !it.is_empty())
}

/// How many letters are to be changed, added or left out to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], at + 1);
        for (place, theirs) in other.iter().enumerate() {
            let changed = before + usize::from(letter != *theirs);
            before = row[place + 1];
            row[place + 1] = changed.min(before + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}

fn camel(name: &str) -> String {
    name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

/// The word of the vocabulary that a token spells in a second way: in CamelCase, without its underscores or with others, or with
/// a letter or two wrong.
fn misspelled<'w>(token: &str, words: &'w BTreeSet<&'static str>) -> Option<&'w str> {
    if words.contains(token) {
        return None;
    }
    let plain = |text: &str| text.replace('_', "");
    let snake = token.contains('_') && token.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
    words.iter().copied().find(|word| {
        let parts = word.contains('_');
        let case = parts
            && (token == camel(word) || token.eq_ignore_ascii_case(&plain(word)) && token != token.to_uppercase());
        let underscores = snake && plain(token) == plain(word);
        let letters = snake && parts && word.len() > 7 && distance(token, word) <= 2;
        case || underscores || letters
    })
}

fn findings(path: &Path, text: &str, words: &BTreeSet<&'static str>) -> Vec<String> {
    let mut found = Vec::new();
    for part in read(path, text) {
        for token in tokens(&part) {
            if let Some(word) = misspelled(token, words) {
                found.push(format!("{}: {token} for {word}", path.display()));
            }
        }
    }
    found
}

/// A comment of the contract that lists words of one set, and leaves some of them out.
fn incomplete(path: &Path, text: &str) -> Vec<String> {
    let sets: Vec<BTreeSet<&str>> =
        vocabulary().into_iter().map(|set| set.words.into_iter().map(|word| word.name).collect()).collect();
    let comments = text.lines().filter_map(|line| line.split_once("//"));
    let lists = comments.map(|(_, comment)| comment.trim().split(", ").collect::<BTreeSet<_>>());
    let lists = lists.filter(|list| list.len() > 1 && sets.iter().any(|set| list.is_subset(set)));
    lists
        .filter(|list| !sets.contains(list))
        .map(|list| format!("{}: {list:?} leaves out words of its set", path.display()))
        .collect()
}

#[test]
fn the_contract_lists_every_word_of_a_set_or_none() {
    let mut all = Vec::new();
    files(&root().join("proto/rotacast"), &mut all);
    let lists: Vec<String> = all.iter().flat_map(|path| incomplete(path, &fs::read_to_string(path).unwrap())).collect();
    assert!(all.len() >= 2 && lists.is_empty(), "{} files: {lists:?}", all.len());
}

#[test]
fn a_planted_list_that_leaves_a_word_out_is_found() {
    let found = |text| incomplete(Path::new("admin.proto"), text).len();
    assert_eq!(found("  // paused, awaiting_approval, stuck, safe_mode\n  repeated string overlays = 8;"), 1);
    assert_eq!(found("  // paused, awaiting_approval, stuck, safe_mode, staying\n  // 0, 1"), 0);
    assert_eq!(found("  // Paused by an operator, or stuck."), 0);
}

fn words() -> BTreeSet<&'static str> {
    vocabulary().into_iter().flat_map(|set| set.words).map(|word| word.name).collect()
}

/// Sources, contract, dashboard and documentation, without tests: those plant what is wrong.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    const LEFT_OUT: &[&str] = &["target", "tests", "node_modules", "generated", "CHANGELOG.md", "word.rs", "tests.rs"];
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let left_out = LEFT_OUT.iter().any(|it| name == *it) || name.to_string_lossy().starts_with('.');
        if left_out {
            continue;
        }
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), into),
            kind if kind.is_file() => into.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn no_file_spells_a_word_in_a_second_way() {
    let words = words();
    let mut all = Vec::new();
    for folder in ["core", "proto", "broadcaster", "cli", "subscriber-sdk", "docs"] {
        files(&root().join(folder), &mut all);
    }
    let found: Vec<String> = all
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok().map(|text| findings(path, &text, &words)))
        .flatten()
        .collect();
    assert!(all.len() > 200, "{} files were read", all.len());
    assert!(found.is_empty(), "{} second spellings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_planted_misspelling_is_found_wherever_it_stands() {
    let words = words();
    for (file, text) in [
        ("admin.proto", "  // rolling back: RollingBack, then retired"),
        ("admin.proto", "  // paused, awaiting_aproval, stuck"),
        ("metrics.md", "| `overlay` | `safemode` |"),
        ("cli.md", "waits until it is `roling_back`"),
        ("guard.rs", "    let name = \"inherited_lease_over\";"),
        ("figures.rs", "    label(\"RolledBack\")"),
        ("panel.js", "  if (phase === \"rolling_bak\") return;"),
    ] {
        assert_eq!(findings(Path::new(file), text, &words).len(), 1, "{file}: {text}");
    }
    for (file, text) in [
        ("admin.proto", "message RollBack {} // rolling_back"),
        ("guard.rs", "    Phase::RollingBack => \"rolling_back\","),
        ("docs.md", "the variant `Phase::RollingBack` is `rolling_back`, that is rolling back"),
    ] {
        assert_eq!(findings(Path::new(file), text, &words), Vec::<String>::new(), "{file}: {text}");
    }
}
