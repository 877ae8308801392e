//! As much of dictionaries (RFC 9651 section 4.2.2) as the field needs: whole numbers, booleans and inner lists of
//! whole numbers. Every other value, and every parameter, is skipped.

/// The value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Member {
    /// A whole number that is not negative.
    Integer(u64),
    /// A boolean; a member without a value is true.
    Boolean(bool),
    /// An inner list; what is not a whole number is left out.
    Integers(Vec<u64>),
    /// Anything else.
    Other,
}

/// Digits of the longest integer (RFC 9651 section 3.3.1), and of a decimal with its point (section 3.3.2).
const MAX_INTEGER_LEN: usize = 15;
const MAX_DECIMAL_LEN: usize = 16;

/// The last member of that name, which replaces earlier ones (RFC 9651 section 4.2.2).
pub(super) fn find<'a>(members: &'a [(&str, Member)], name: &str) -> Option<&'a Member> {
    members.iter().rev().find(|(key, _)| *key == name).map(|(_, member)| member)
}

/// Reads a whole dictionary; `None` if any part of it is malformed.
pub(super) fn parse(text: &str) -> Option<Vec<(&str, Member)>> {
    let mut rest = text.trim_matches(' ');
    let mut members = Vec::new();
    while !rest.is_empty() {
        let key = key(&mut rest)?;
        let member = if eat(&mut rest, '=') { value(&mut rest)? } else { Member::Boolean(true) };
        parameters(&mut rest)?;
        members.push((key, member));
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            break;
        }
        if !eat(&mut rest, ',') {
            return None;
        }
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

fn eat(rest: &mut &str, expected: char) -> bool {
    rest.strip_prefix(expected).map(|after| *rest = after).is_some()
}

/// Takes the longest start that consists of `allowed`.
fn take_while<'a>(rest: &mut &'a str, allowed: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|char| !allowed(char)).unwrap_or(rest.len());
    let (taken, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
    *rest = after;
    taken
}

fn key<'a>(rest: &mut &'a str) -> Option<&'a str> {
    rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '*').then_some(())?;
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_-.*".contains(char);
    Some(take_while(rest, allowed))
}

fn value(rest: &mut &str) -> Option<Member> {
    if !eat(rest, '(') {
        return bare_item(rest);
    }
    let mut numbers = Vec::new();
    loop {
        *rest = rest.trim_start_matches(' ');
        if eat(rest, ')') {
            return Some(Member::Integers(numbers));
        }
        if let Member::Integer(number) = bare_item(rest)? {
            numbers.push(number);
        }
        parameters(rest)?;
        rest.starts_with([' ', ')']).then_some(())?;
    }
}

fn parameters(rest: &mut &str) -> Option<()> {
    while eat(rest, ';') {
        *rest = rest.trim_start_matches(' ');
        key(rest)?;
        if eat(rest, '=') {
            bare_item(rest)?;
        }
    }
    Some(())
}

fn bare_item(rest: &mut &str) -> Option<Member> {
    match rest.chars().next()? {
        '-' | '0'..='9' => number(rest),
        '?' => boolean(rest),
        '"' => quoted(rest),
        '%' => {
            eat(rest, '%');
            quoted(rest)
        }
        ':' => {
            eat(rest, ':');
            take_while(rest, |char| char.is_ascii_alphanumeric() || "+/=".contains(char));
            eat(rest, ':').then_some(Member::Other)
        }
        '@' => {
            eat(rest, '@');
            number(rest).map(|_date| Member::Other)
        }
        first if first.is_ascii_alphabetic() || first == '*' => {
            take_while(rest, |char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(char));
            Some(Member::Other)
        }
        _ => None,
    }
}

fn number(rest: &mut &str) -> Option<Member> {
    let negative = eat(rest, '-');
    let digits = take_while(rest, |char| char.is_ascii_digit() || char == '.');
    digits.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
    if digits.contains('.') {
        return (digits.len() <= MAX_DECIMAL_LEN && !digits.ends_with('.')).then_some(Member::Other);
    }
    let value = (digits.len() <= MAX_INTEGER_LEN).then(|| digits.parse().ok())??;
    Some(if negative { Member::Other } else { Member::Integer(value) })
}

fn boolean(rest: &mut &str) -> Option<Member> {
    let after = |text| rest.strip_prefix(text);
    let (value, after) = after("?1").map(|after| (true, after)).or_else(|| after("?0").map(|after| (false, after)))?;
    *rest = after;
    Some(Member::Boolean(value))
}

/// Skips a string with its quotes; within, only a quote and a backslash may be escaped.
fn quoted(rest: &mut &str) -> Option<Member> {
    eat(rest, '"').then_some(())?;
    loop {
        take_while(rest, |char| matches!(char, ' '..='~') && char != '"' && char != '\\');
        if eat(rest, '"') {
            return Some(Member::Other);
        }
        if !(eat(rest, '\\') && (eat(rest, '"') || eat(rest, '\\'))) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_of_all_kinds_are_read_or_skipped() {
        let text = r#"a=1, b , c=?0;x;y="q,\"",d=(1 tok;p=2 3),  e=-4,f=1.5,g=tok/en,h=:aGk=:,i=@7,j=%"%c3"  "#;
        let members = parse(text).unwrap();
        let expected = [
            ("a", Member::Integer(1)),
            ("b", Member::Boolean(true)),
            ("c", Member::Boolean(false)),
            ("d", Member::Integers(vec![1, 3])),
            ("e", Member::Other),
            ("f", Member::Other),
            ("g", Member::Other),
            ("h", Member::Other),
            ("i", Member::Other),
            ("j", Member::Other),
        ];
        assert_eq!(members, expected);
    }

    #[test]
    fn last_of_equal_names_counts() {
        assert_eq!(find(&parse("a=1, a=2").unwrap(), "a"), Some(&Member::Integer(2)));
    }

    #[test]
    fn malformed_dictionaries_are_refused_whole() {
        for text in [
            "A=1",
            "=1",
            "a=",
            "a=1,",
            "a=1 b=2",
            "a=(1",
            "a=(1,2)",
            "a=(1\t2)",
            "a=\"x",
            "a=\"\\x\"",
            "a=?2",
            "a=1.",
            "a=--1",
            "a=:x",
            "a=1234567890123456",
            "a;=1",
            "a=ä",
            ",",
            "a=%x",
            "a=@",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[a-c=,;()\"\\\\?:@%0-9. ä-]{0,30}") {
            let _members = parse(&text);
        }
    }
}
