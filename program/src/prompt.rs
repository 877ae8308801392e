//! Asks a person: on the terminal, with what is secret unseen, or, where standard input is no terminal, by one line of
//! it for each answer.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::output;

/// Longest answer, in bytes.
const LONGEST_ANSWER: usize = 4096;
/// What the keys Ctrl-C, Ctrl-D, Ctrl-U and the two kinds of backspace send.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const KILL: u8 = 0x15;
const BACKSPACES: [u8; 2] = [0x08, 0x7f];

/// Whether an answer is seen while it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It is.
    Shown,
    /// It is a secret.
    Hidden,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is nothing more to read.
    #[error("standard input ended")]
    Ended,
    /// The person pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The answer does not fit 4096 bytes, or is no text.
    #[error("the answer is too long, or no UTF-8 text")]
    Unusable,
    /// The terminal or standard input failed.
    #[error("standard input cannot be read")]
    Io(#[from] io::Error),
}

/// Whether a person can be asked at a terminal.
#[must_use]
pub fn at_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Asks for one line, which comes back without its end. Blocks until it is there.
///
/// # Errors
/// Why there is no answer.
pub fn ask(label: &str, echo: Echo) -> Result<Zeroizing<String>, Unanswered> {
    let stdin = io::stdin();
    let bytes = || read_byte(&stdin);
    let answer = match (at_terminal(), echo) {
        (false, _) => read_line(bytes)?,
        (true, Echo::Shown) => {
            output::raw_error(&format!("{label}: "));
            read_line(bytes)?
        }
        (true, Echo::Hidden) => {
            output::raw_error(&format!("{label}: "));
            let quiet = Quiet::begin(&stdin)?;
            let answer = read_typed(bytes);
            drop(quiet);
            output::raw_error("\n");
            answer?
        }
    };
    let text = str::from_utf8(&answer).map_err(|_| Unanswered::Unusable)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The next byte of standard input, past any buffer that would keep a secret; `None` at its end.
fn read_byte(stdin: &impl AsFd) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match nix::unistd::read(stdin, &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Room for an answer that never moves, so that no copy of a secret is left behind.
fn room() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER))
}

/// Reads up to the end of a line, or of everything if something came before.
fn read_line(mut next: impl FnMut() -> io::Result<Option<u8>>) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
    let mut line = room();
    loop {
        match next()? {
            None if line.is_empty() => return Err(Unanswered::Ended),
            None | Some(b'\n') => break,
            Some(_) if line.len() == LONGEST_ANSWER => return Err(Unanswered::Unusable),
            Some(byte) => line.push(byte),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// Reads a line key by key from a terminal that edits nothing.
fn read_typed(mut next: impl FnMut() -> io::Result<Option<u8>>) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
    let mut line = room();
    loop {
        match next()? {
            Some(b'\n' | b'\r') => return Ok(line),
            Some(INTERRUPT) => return Err(Unanswered::Interrupted),
            Some(END) | None if line.is_empty() => return Err(Unanswered::Ended),
            Some(END) | None => return Ok(line),
            Some(KILL) => line.clear(),
            Some(byte) if BACKSPACES.contains(&byte) => remove_character(&mut line),
            Some(_) if line.len() == LONGEST_ANSWER => return Err(Unanswered::Unusable),
            Some(byte) => line.push(byte),
        }
    }
}

/// Removes the last character, which may be several bytes of UTF-8.
fn remove_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

/// A terminal that shows nothing of what is typed, and takes Ctrl-C as a key: a program that it ended would leave the
/// terminal so. It is as before on drop.
struct Quiet<'a> {
    stdin: &'a io::Stdin,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(stdin: &'a io::Stdin) -> Result<Self, Unanswered> {
        let before = tcgetattr(stdin).map_err(io::Error::from)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(stdin, SetArg::TCSAFLUSH, &quiet).map_err(io::Error::from)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // What was typed ahead is kept for the next question.
        if let Err(error) = tcsetattr(self.stdin, SetArg::TCSADRAIN, &self.before) {
            tracing::warn!(%error, "the terminal may show nothing of what is typed; `stty sane` mends it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&mut dyn FnMut() -> io::Result<Option<u8>>) -> Result<Zeroizing<Vec<u8>>, Unanswered>;

    fn answers(read: Read, input: &[u8], count: usize) -> Vec<String> {
        let mut bytes = input.iter().copied();
        let mut next = || Ok(bytes.next());
        let mut answer = || match read(&mut next) {
            Ok(line) => String::from_utf8(line.to_vec()).unwrap(),
            Err(error) => format!("({error})"),
        };
        (0..count).map(|_| answer()).collect()
    }

    #[test]
    fn each_line_of_input_is_one_answer() {
        let read: Read = |next| read_line(next);
        let ended = "(standard input ended)";
        assert_eq!(answers(read, b"alice\nsecret pass\r\n\nlast", 5), ["alice", "secret pass", "", "last", ended]);
        let long = vec![b'a'; LONGEST_ANSWER + 1];
        assert_eq!(answers(read, &long, 1), ["(the answer is too long, or no UTF-8 text)"]);
    }

    #[test]
    fn typed_line_can_be_mended_and_left() {
        let read: Read = |next| read_typed(next);
        assert_eq!(answers(read, "secrät\u{7f}\u{8}et\n".as_bytes(), 1), ["secret"]);
        assert_eq!(answers(read, b"wrong\x15right\r", 1), ["right"]);
        assert_eq!(answers(read, b"half\x03", 1), ["(interrupted)"]);
        assert_eq!(answers(read, b"\x04", 1), ["(standard input ended)"]);
        assert_eq!(answers(read, b"\x7f\x7fa\n", 1), ["a"]);
    }
}
