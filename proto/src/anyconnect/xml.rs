//! Reads the XML of clients and of gateways: bounded in every way, and without document types, so that nobody declares
//! an entity.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use zeroize::Zeroizing;

/// Largest document, in bytes.
pub(super) const MAX_DOCUMENT: usize = 64 * 1024;
/// Most elements around one text. Both sides use five.
const MAX_DEPTH: usize = 16;
/// Most elements in all.
const MAX_ELEMENTS: usize = 256;
/// Longest name of an element, in bytes.
const MAX_NAME: usize = 64;
/// Most attributes of an element.
const MAX_ATTRIBUTES: usize = 16;

/// Why a document is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlFault {
    /// It is larger than any that is meant well.
    #[error("the document is too large")]
    TooLarge,
    /// It has a document type, which could declare entities.
    #[error("the document has a document type")]
    DocumentType,
    /// It is no XML, or no UTF-8, or names an entity that nobody declared.
    #[error("the document is malformed")]
    Malformed,
}

/// An element that has ended. What it says may be a secret, so it has no `Debug`.
pub(super) struct Element {
    /// The names from the root to the element, with slashes between them.
    pub(super) path: String,
    /// What it says itself, without what its children say.
    pub(super) text: Zeroizing<String>,
    /// Names and values of its attributes, each name once.
    attributes: Vec<(String, Zeroizing<String>)>,
}

impl Element {
    /// What an attribute says.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a document into its elements, in the order in which they end.
pub(super) fn read(document: &[u8]) -> Result<Vec<Element>, XmlFault> {
    if document.len() > MAX_DOCUMENT {
        return Err(XmlFault::TooLarge);
    }
    let document = std::str::from_utf8(document).map_err(|_malformed| XmlFault::Malformed)?;
    let mut reader = Reader::from_str(document);
    let mut tree = Tree::default();
    loop {
        match reader.read_event().map_err(|_malformed| XmlFault::Malformed)? {
            Event::Start(start) => tree.begin(&start)?,
            Event::Empty(start) => {
                tree.begin(&start)?;
                tree.end();
            }
            Event::End(_) => tree.end(),
            Event::Text(text) => tree.add(&text.xml10_content()),
            Event::CData(text) => tree.add(&text.xml10_content()),
            Event::GeneralRef(reference) => tree.add(&resolved(&reference)?),
            Event::DocType(_) => return Err(XmlFault::DocumentType),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return tree.finish(),
        }
    }
}

/// What `&…;` stands for: a character by its number, or one of the five that XML itself names.
fn resolved(reference: &BytesRef<'_>) -> Result<String, XmlFault> {
    if let Some(character) = reference.resolve_char_ref().map_err(|_malformed| XmlFault::Malformed)? {
        return Ok(character.to_string());
    }
    quick_xml::escape::resolve_xml_entity(reference).map(str::to_owned).ok_or(XmlFault::Malformed)
}

/// The elements so far.
#[derive(Default)]
struct Tree {
    /// Those that have not ended, the root first.
    open: Vec<Element>,
    ended: Vec<Element>,
}

impl Tree {
    fn begin(&mut self, start: &BytesStart<'_>) -> Result<(), XmlFault> {
        if self.open.len() >= MAX_DEPTH || self.open.len().saturating_add(self.ended.len()) >= MAX_ELEMENTS {
            return Err(XmlFault::TooLarge);
        }
        let name = start.local_name().into_inner();
        if name.len() > MAX_NAME {
            return Err(XmlFault::TooLarge);
        }
        let path = self.open.last().map_or_else(|| name.to_owned(), |parent| format!("{}/{name}", parent.path));
        self.open.push(Element { path, text: Zeroizing::default(), attributes: attributes_of(start)? });
        Ok(())
    }

    fn add(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }

    fn end(&mut self) {
        self.ended.extend(self.open.pop());
    }

    /// All elements, if each has ended and there is a root.
    fn finish(self) -> Result<Vec<Element>, XmlFault> {
        if self.open.is_empty() && !self.ended.is_empty() { Ok(self.ended) } else { Err(XmlFault::Malformed) }
    }
}

fn attributes_of(start: &BytesStart<'_>) -> Result<Vec<(String, Zeroizing<String>)>, XmlFault> {
    let mut attributes = Vec::new();
    // It is an error if there are two of a name.
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|_malformed| XmlFault::Malformed)?;
        if attributes.len() >= MAX_ATTRIBUTES {
            return Err(XmlFault::TooLarge);
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_malformed| XmlFault::Malformed)?;
        attributes.push((attribute.key.into_inner().to_owned(), Zeroizing::new(value.into_owned())));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(document: &str) -> Result<Vec<(String, String)>, XmlFault> {
        let elements = read(document.as_bytes())?;
        Ok(elements.into_iter().map(|element| (element.path, element.text.to_string())).collect())
    }

    fn pair(path: &str, text: &str) -> (String, String) {
        (path.to_owned(), text.to_owned())
    }

    #[test]
    fn elements_have_their_own_text_with_references_and_sections_resolved() {
        let read =
            texts("<?xml version=\"1.0\"?><!-- c --><a><b>1 &lt; 2 &#x41;&#66;</b><c><![CDATA[<&]]>x</c><d/></a>");
        assert_eq!(read, Ok(vec![pair("a/b", "1 < 2 AB"), pair("a/c", "<&x"), pair("a/d", ""), pair("a", "")]));
    }

    #[test]
    fn attributes_are_read_once_each_with_references_resolved() {
        let first = |document: &str| read(document.as_bytes()).map(|mut elements| elements.remove(0));
        let element = first("<a b='1 &lt; &#50;' c=\"\"/>").ok().unwrap();
        assert_eq!(["b", "c", "d"].map(|name| element.attribute(name)), [Some("1 < 2"), Some(""), None]);
        for twice in ["<a b='1' b='2'/>", "<a b='&l;'/>", "<a b=1/>", "<a b/>"] {
            assert_eq!(first(twice).err(), Some(XmlFault::Malformed), "{twice}");
        }
        let many = |number: usize| {
            let attributes: String = (0..number).map(|number| format!(" a{number}=''")).collect();
            first(&format!("<a{attributes}/>")).err()
        };
        assert_eq!((many(MAX_ATTRIBUTES), many(MAX_ATTRIBUTES + 1)), (None, Some(XmlFault::TooLarge)));
    }

    #[test]
    fn nobody_declares_or_names_an_entity() {
        let lol = "<!DOCTYPE a [<!ENTITY l \"ha\"><!ENTITY m \"&l;&l;&l;&l;\">]><a>&m;</a>";
        assert_eq!(texts(lol), Err(XmlFault::DocumentType));
        assert_eq!(texts("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>"), Err(XmlFault::DocumentType));
        assert_eq!(texts("<a>&l;</a>"), Err(XmlFault::Malformed));
        assert_eq!(texts("<a>&amp;</a>"), Ok(vec![pair("a", "&")]), "the positive control");
    }

    #[test]
    fn depth_number_names_and_size_are_bounded() {
        let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert!(texts(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(texts(&deep(MAX_DEPTH + 1)), Err(XmlFault::TooLarge));
        let many = |number: usize| format!("<a>{}</a>", "<b/>".repeat(number - 1));
        assert!(texts(&many(MAX_ELEMENTS)).is_ok());
        assert_eq!(texts(&many(MAX_ELEMENTS + 1)), Err(XmlFault::TooLarge));
        let named = |length: usize| format!("<{}/>", "n".repeat(length));
        assert!(texts(&named(MAX_NAME)).is_ok());
        assert_eq!(texts(&named(MAX_NAME + 1)), Err(XmlFault::TooLarge));
        let large = |size: usize| format!("<a>{}</a>", "t".repeat(size - 7));
        assert!(texts(&large(MAX_DOCUMENT)).is_ok());
        assert_eq!(texts(&large(MAX_DOCUMENT + 1)), Err(XmlFault::TooLarge));
    }

    #[test]
    fn what_is_not_whole_is_malformed() {
        for document in ["", "text", "<a>", "<a></b>", "</a>", "<a", "<a><b></a>", "<a>&#xd800;</a>", "<a>&"] {
            assert_eq!(texts(document), Err(XmlFault::Malformed), "{document:?}");
        }
        assert_eq!(read(b"<a>\xff</a>").err(), Some(XmlFault::Malformed));
    }

    proptest! {
        #[test]
        fn nothing_disturbs_the_reader(document in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&document));
        }

        #[test]
        fn nothing_that_looks_like_xml_disturbs_the_reader(document in "[<>/a&;#x1! \\[\\]\"=-]{0,60}") {
            drop(read(document.as_bytes()));
        }
    }
}
