use std::time::Duration;

use super::text::with_part;
use super::*;

#[derive(Debug, Default, PartialEq)]
struct Garden {
    name: String,
    beds: u16,
    water_every: Duration,
    gates: Vec<String>,
    fence: Option<bool>,
}

static KEYS: Keys<Garden> = Keys {
    listed: "the sign at the gate lists every key",
    tables: &[&[
        Key {
            name: "name",
            kind: Kind::Text,
            absent: Absent::Refused,
            example: r#""Eden""#,
            meaning: "What it is called.",
            applies: Applies::Live,
            read: |given, garden| put(&mut garden.name, given.text().map(str::to_owned)),
        },
        Key {
            name: "gates",
            kind: Kind::List,
            absent: Absent::Default("[]"),
            example: r#"["north"]"#,
            meaning: "Where people come in.",
            applies: Applies::Restart,
            read: |given, garden| put(&mut garden.gates, given.list(|gate| gate.text().map(str::to_owned))),
        },
        Key {
            name: "fence",
            kind: Kind::Boolean,
            absent: Absent::Optional,
            example: "true",
            meaning: "Whether there is a fence.",
            applies: Applies::Restart,
            read: |given, garden| put(&mut garden.fence, given.boolean().map(Some)),
        },
        Key {
            name: "plan.beds",
            kind: Kind::Integer { least: 1, most: 300 },
            absent: Absent::Default("4"),
            example: "8",
            meaning: "Beds; {least} to {most}.\nMore are weeds.",
            applies: Applies::Restart,
            read: |given, garden| put(&mut garden.beds, given.integer()),
        },
        Key {
            name: "plan.water_every",
            kind: Kind::Duration { least: "1h", most: "7d" },
            absent: Absent::Default(r#""24h""#),
            example: r#""12h""#,
            meaning: "How often it is watered; at most {most}.",
            applies: Applies::Live,
            read: |given, garden| put(&mut garden.water_every, given.duration()),
        },
    ]],
};

fn read(text: &str, overrides: &Overrides) -> (Garden, Vec<Finding>) {
    let mut garden = Garden::default();
    let findings = KEYS.read(text, overrides, &mut garden).unwrap();
    (garden, findings)
}

fn problems(text: &str) -> Vec<String> {
    read(text, &Overrides::default()).1.into_iter().map(|finding| Problem::from(finding).to_string()).collect()
}

fn overrides(environment: &[(&'static str, &str)], flags: &[(&str, &str)]) -> Overrides {
    Overrides {
        environment: environment.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
        flags: flags.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
    }
}

#[test]
fn smallest_file_gets_every_default_and_lacks_only_what_may_be_lacking() {
    let (garden, findings) = read("name = \"Eden\"\n", &Overrides::default());
    assert_eq!(findings, []);
    let water_every = Duration::from_secs(24 * 3600);
    assert_eq!(garden, Garden { name: "Eden".into(), beds: 4, water_every, gates: Vec::new(), fence: None });
}

#[test]
fn all_problems_are_told_at_once_unknown_names_first() {
    let found = problems("nmae = \"x\"\ngates = 3\n[plan]\nbeds = 301\nwater_every = \"8d\"\n[moat]\ndepth = 1\n");
    assert_eq!(
        found,
        [
            "moat: unknown key; remove it; the sign at the gate lists every key",
            "nmae: unknown key; did you mean `name`?",
            "name: missing; add name = \"Eden\"",
            "gates: 3 is not a list; write [3]",
            "plan.beds: 301 is not in range; write a number from 1 to 300",
            "plan.water_every: \"8d\" is not in range; write 1h to 7days",
        ]
    );
}

#[test]
fn value_of_another_kind_is_named_with_what_to_write() {
    assert_eq!(problems("name = 3\n"), ["name: 3 is not a text; put it in quotes"]);
    assert_eq!(problems("name = \"x\"\nplan = 3\n"), ["plan: 3 is not a table; write [plan] and its keys below it"]);
    assert_eq!(problems("name = \"x\"\nfence = 3\n"), ["fence: 3 is neither true nor false; write true or false"]);
    for bad in ["-1", "0", "70000", "\"4\"", "4.0"] {
        assert_eq!(problems(&format!("name = \"x\"\nplan.beds = {bad}\n")).len(), 1, "{bad}");
    }
    for bad in ["15", "\"15\"", "\"59m\"", "\"soon\""] {
        assert_eq!(problems(&format!("name = \"x\"\nplan.water_every = {bad}\n")).len(), 1, "{bad}");
    }
}

#[test]
fn only_what_lacks_a_value_leaves_a_gap() {
    let gaps = |text: &str| read(text, &Overrides::default()).1.iter().map(Finding::leaves_a_gap).collect::<Vec<_>>();
    assert_eq!(gaps("name = \"x\"\nnmae = 1\nplan = 3\n"), [false, false]);
    assert_eq!(gaps("gates = 3\n"), [true, true]);
}

#[test]
fn finding_knows_the_line_of_its_value() {
    let text = "name = \"\"\"\ntwo\nlines\"\"\"\ngates = [\n  \"a\",\n]\nnmae = 1\n[plan]\n\nbeds = 0\n";
    let lines: Vec<_> =
        read(text, &Overrides::default()).1.into_iter().map(|found| (found.key, found.origin)).collect();
    assert_eq!(lines, [("nmae".to_owned(), Origin::Line(7)), ("plan.beds".to_owned(), Origin::Line(10))]);
}

#[test]
fn syntax_error_names_its_line() {
    let fault = KEYS.read("name = \"x\"\ngates = \n", &Overrides::default(), &mut Garden::default()).unwrap_err();
    assert_eq!(fault.line, 2);
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let text = "name = \"x\"\n[plan]\nbeds = 1\n";
    assert_eq!(read(text, &overrides(&[("plan.beds", "2")], &[])).0.beds, 2);
    let both = overrides(&[("plan.beds", "2")], &[("plan.beds", "3"), ("plan.beds", "5")]);
    assert_eq!(read(text, &both).0.beds, 5);
    assert_eq!(both.of("plan.beds"), Some("5"));
    assert_eq!(both.of("name"), None);
}

#[test]
fn override_is_a_literal_or_plain_text_and_a_list_is_split_at_commas() {
    let (garden, findings) = read("", &overrides(&[("gates", "north, south")], &[("name", "Eden"), ("fence", "true")]));
    assert_eq!(findings, []);
    assert_eq!(garden.gates, ["north", "south"]);
    assert_eq!((garden.name.as_str(), garden.fence), ("Eden", Some(true)));
    let (garden, _) = read("", &overrides(&[], &[("gates", r#"["north"]"#), ("name", "\"Eden\"")]));
    assert_eq!((garden.gates, garden.name), (vec!["north".to_owned()], "Eden".to_owned()));
}

#[test]
fn bad_override_names_its_origin() {
    let (_, findings) = read("name = \"x\"\n", &overrides(&[("plan.beds", "0")], &[("plan.bed", "1")]));
    let what: Vec<_> = findings.into_iter().map(|finding| Problem::from(finding).what).collect();
    assert_eq!(what, ["plan.bed (--set)", "plan.beds (ADIT_PLAN_BEDS)"]);
}

#[test]
fn misspelt_name_is_answered_with_a_key_or_a_table() {
    for (name, meant) in [("plan.bedss", "plan.beds"), ("beds", "plan.beds"), ("plant", "plan"), ("gate", "gates")] {
        assert_eq!(KEYS.closest(name), Some(meant), "{name}");
    }
    assert_eq!(KEYS.closest("zzzzzz"), None);
}

#[test]
fn sample_is_toml_that_sets_only_the_values_given() {
    let text = KEYS.sample("A garden.", &[("name", "\"Eden\"".to_owned()), ("plan.beds", "7".to_owned())]);
    let (garden, findings) = read(&text, &Overrides::default());
    assert_eq!((findings, garden.beds), (vec![], 7));
    assert!(text.starts_with("# A garden.\n\n# What it is called.\nname = \"Eden\"\n"), "{text}");
    assert!(text.contains("# Whether there is a fence.\n# (no default)\n# fence = true\n"), "{text}");
    assert!(text.contains("\n[plan]\n\n# Beds; 1 to 300.\n# More are weeds.\nbeds = 7\n"), "{text}");
    assert!(text.contains("# (default)\n# water_every = \"24h\"\n"), "{text}");
}

#[test]
fn reference_has_a_row_for_each_key() {
    let text = KEYS.reference();
    assert!(text.contains("| `name` | text | must be given | live | What it is called. |\n"), "{text}");
    assert!(text.contains("| `fence` | `true`, `false` | none | restart | Whether there is a fence. |\n"), "{text}");
    assert!(
        text.contains("| `plan.beds` | number, 1 to 300 | `4` | restart | Beds; 1 to 300. More are weeds. |\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2 + KEYS.rows().count());
}

#[test]
fn part_of_a_page_is_replaced() {
    let page = "a\n<!-- keys: begin -->\nold\n<!-- keys: end -->\nb\n";
    let new = with_part(page, "keys", "new\n").unwrap();
    assert_eq!(new, "a\n<!-- keys: begin -->\nnew\n<!-- keys: end -->\nb\n");
    assert_eq!(with_part(page, "other", "new\n"), None);
}

#[test]
fn keys_that_differ_are_found_and_taken_over_one_by_one() {
    let gather = |text| KEYS.gather(text, &Overrides::default()).unwrap().0;
    let mut values = gather("name = \"Eden\"\nfence = true\n[plan]\nbeds = 4\n");
    let newer = gather("name = \"Kew\"\ngates = []\n[plan]\nwater_every = \"12h\"\n");
    let differing: Vec<&str> = values.differing(&newer, &KEYS).iter().map(|key| key.name).collect();
    assert_eq!(differing, ["name", "fence", "plan.water_every"], "a default that is written out is no difference");
    for name in ["fence", "plan.water_every"] {
        values.take_over(name, &newer);
    }
    let mut garden = Garden::default();
    assert_eq!(KEYS.read_values(&values, &mut garden), []);
    assert_eq!((garden.name.as_str(), garden.fence), ("Eden", None));
    assert_eq!(values.differing(&newer, &KEYS).len(), 1);
}
