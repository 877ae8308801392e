//! Form-encoded bodies (`application/x-www-form-urlencoded`), as clients send them that speak no XML.

use zeroize::Zeroizing;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most fields.
const MAX_FIELDS: usize = 64;

/// Reads the fields of a body, in order; `None` if it has too many, is too large, or is no UTF-8 behind its escapes.
pub fn read(body: &[u8]) -> Option<Vec<(String, Zeroizing<String>)>> {
    if body.len() > MAX_BODY {
        return None;
    }
    let mut fields = Vec::new();
    for field in body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
        if fields.len() >= MAX_FIELDS {
            return None;
        }
        let mut parts = field.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        fields.push((decode(name)?.to_string(), decode(value)?));
    }
    Some(fields)
}

/// Takes escapes back: `+` is a space, `%` and two digits are a byte. A `%` without them stands for itself.
fn decode(text: &[u8]) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = if first == b'%' { after.split_first_chunk::<2>() } else { None };
        let value = escaped.and_then(|(digits, after)| Some((byte_of(*digits)?, after)));
        match (first, value) {
            (_, Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(other),
        }
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

fn byte_of(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from((high? << 4) | low?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(body: &str) -> Option<Vec<(String, String)>> {
        let fields = read(body.as_bytes())?;
        Some(fields.into_iter().map(|(name, value)| (name, value.to_string())).collect())
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn fields_are_read_with_their_escapes_taken_back() {
        let read = fields("username=al%69ce&password=a+b%26%3d%C3%bc=&empty&");
        assert_eq!(read, Some(vec![field("username", "alice"), field("password", "a b&=ü="), field("empty", "")]));
        assert_eq!(fields("a=100%&b=%4&c=%zz"), Some(vec![field("a", "100%"), field("b", "%4"), field("c", "%zz")]));
        assert_eq!(fields(""), Some(Vec::new()));
    }

    #[test]
    fn bombs_are_refused() {
        assert!(fields(&"a=1&".repeat(MAX_FIELDS)).is_some());
        assert_eq!(fields(&"a=1&".repeat(MAX_FIELDS + 1)), None);
        assert!(fields(&"a".repeat(MAX_BODY)).is_some());
        assert_eq!(fields(&"a".repeat(MAX_BODY + 1)), None);
        assert_eq!(fields("a=%ff"), None, "no UTF-8");
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(value in "\\PC{0,40}") {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(fields(&format!("v={escaped}")), Some(vec![field("v", &value)]));
        }

        #[test]
        fn nothing_disturbs_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&body));
        }
    }
}
