//! Elements of a byte stream that begin with their type and length as variable-length integers: HTTP/3 frames (RFC 9114
//! section 7.1) and capsules (RFC 9297 section 3.2).
//!
//! The stream may arrive cut anywhere. An element is collected whole, passed on in pieces, or skipped without being
//! held.

use super::take;

/// Longest head: two integers of eight bytes.
const MAX_HEAD_LEN: usize = 16;

/// Type and length of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u64,
    pub(crate) length: u64,
}

/// What to do with an element's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Collect it; the caller has checked that it is not too long.
    Whole,
    /// Pass it on as it comes.
    Pieces,
    /// Forget it.
    Skip,
}

/// A value, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// The whole value of an element of this type.
    Whole(u64, Vec<u8>),
    /// The next piece of an element treated as [`Treatment::Pieces`]; never empty.
    Piece(&'a [u8]),
}

/// Cuts a byte stream into elements.
#[derive(Debug, Default)]
pub(crate) struct ElementReader {
    head: Vec<u8>,
    value: Option<Value>,
}

/// The value being read.
#[derive(Debug)]
struct Value {
    kind: u64,
    remaining: u64,
    treatment: Treatment,
    collected: Vec<u8>,
}

impl ElementReader {
    /// Takes the next element, or piece of one, off `data`; `None` when `data` is used up.
    ///
    /// `decide` is asked once per element, as soon as its head is complete; its error ends the stream.
    pub(crate) fn next<'a, E>(
        &mut self,
        data: &mut &'a [u8],
        mut decide: impl FnMut(Head) -> Result<Treatment, E>,
    ) -> Result<Option<Element<'a>>, E> {
        loop {
            let mut value = match self.value.take() {
                Some(value) => value,
                None => match self.read_head(data) {
                    Some(head) => Value::new(head, decide(head)?),
                    None => return Ok(None),
                },
            };
            let piece = value.read(data);
            let done = value.remaining == 0;
            match value.treatment {
                Treatment::Whole if done => return Ok(Some(Element::Whole(value.kind, value.collected))),
                Treatment::Pieces if !piece.is_empty() => {
                    self.value = (!done).then_some(value);
                    return Ok(Some(Element::Piece(piece)));
                }
                Treatment::Whole | Treatment::Pieces | Treatment::Skip if done => {}
                Treatment::Whole | Treatment::Pieces | Treatment::Skip => {
                    self.value = Some(value);
                    return Ok(None);
                }
            }
        }
    }

    /// Says whether the stream may end here: not inside an element.
    pub(crate) fn is_between_elements(&self) -> bool {
        self.head.is_empty() && self.value.is_none()
    }

    fn read_head(&mut self, data: &mut &[u8]) -> Option<Head> {
        while let Some((&byte, rest)) = data.split_first() {
            *data = rest;
            self.head.push(byte);
            debug_assert!(self.head.len() <= MAX_HEAD_LEN, "two integers are complete by then");
            if let Some(head) = Head::decode(&self.head) {
                self.head.clear();
                return Some(head);
            }
        }
        None
    }
}

impl Head {
    fn decode(mut bytes: &[u8]) -> Option<Self> {
        Some(Self { kind: take(&mut bytes)?, length: take(&mut bytes)? })
    }
}

impl Value {
    fn new(head: Head, treatment: Treatment) -> Self {
        Self { kind: head.kind, remaining: head.length, treatment, collected: Vec::new() }
    }

    /// Takes as much of the value as there is off `data`.
    fn read<'a>(&mut self, data: &mut &'a [u8]) -> &'a [u8] {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(data.len());
        let (piece, rest) = data.split_at(wanted);
        *data = rest;
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        if self.treatment == Treatment::Whole {
            self.collected.extend_from_slice(piece);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Type 1 whole, type 2 in pieces, others skipped.
    fn read(reader: &mut ElementReader, mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut elements = Vec::new();
        let decide = |head: Head| {
            Ok::<_, Infallible>(match head.kind {
                1 => Treatment::Whole,
                2 => Treatment::Pieces,
                _ => Treatment::Skip,
            })
        };
        while let Some(element) = reader.next(&mut data, decide).unwrap() {
            elements.push(match element {
                Element::Whole(kind, value) => (kind, value),
                Element::Piece(piece) => (2, piece.to_vec()),
            });
        }
        assert!(data.is_empty(), "all input is used");
        elements
    }

    #[test]
    fn values_are_collected_passed_on_or_skipped() {
        let mut reader = ElementReader::default();
        let stream = [1, 2, 10, 11, 3, 1, 0xff, 2, 2, 20, 21, 1, 0, 2, 0];
        let expected = vec![(1, vec![10, 11]), (2, vec![20, 21]), (1, vec![])];
        assert_eq!(read(&mut reader, &stream), expected);
        assert!(reader.is_between_elements());
    }

    #[test]
    fn stream_cut_anywhere_gives_the_same_values() {
        let stream = [0x40, 1, 0x40, 2, 10, 11, 3, 1, 0xff, 2, 2, 20, 21, 1, 0];
        for cut in 0..stream.len() {
            let mut reader = ElementReader::default();
            let (first, second) = stream.split_at(cut);
            let mut elements = read(&mut reader, first);
            assert_eq!(reader.is_between_elements(), [0, 6, 9, 13].contains(&cut));
            elements.extend(read(&mut reader, second));
            let pieces: Vec<u8> = elements.iter().filter(|e| e.0 == 2).flat_map(|e| e.1.clone()).collect();
            assert_eq!(pieces, [20, 21]);
            let wholes: Vec<_> = elements.into_iter().filter(|e| e.0 == 1).map(|e| e.1).collect();
            assert_eq!(wholes, [vec![10, 11], vec![]]);
        }
    }

    #[test]
    fn refused_element_ends_the_stream() {
        let mut data: &[u8] = &[9, 0];
        assert_eq!(ElementReader::default().next(&mut data, |head| Err(head.kind)), Err(9));
    }
}
