//! What a command sees of the world: its input, its output, the environment.
//!
//! Commands get a [`Console`] and touch no global stream, so that tests run them in the same
//! process and read what they print.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use zeroize::Zeroizing;

/// Bytes that are read at a time.
const STEP: usize = 64 * 1024;

/// The streams and the environment of one command.
pub struct Console<'a> {
    /// Standard input.
    pub input: &'a mut dyn BufRead,
    /// Standard output: what was asked for, and nothing else.
    pub out: &'a mut dyn Write,
    /// Standard error: mistakes and remarks.
    pub err: &'a mut dyn Write,
    /// Looks a variable of the environment up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Somebody sits at standard input and can be asked.
    pub interactive: bool,
    /// Standard output is a terminal: what was printed can be drawn over.
    pub redraws: bool,
    /// Standard error is a terminal: somebody watches how far a long command is.
    pub watched: bool,
}

impl Console<'_> {
    /// Prints `text` with a newline.
    ///
    /// # Errors
    /// When the output is closed or full.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Prints a remark that is not part of the output; one that cannot be printed is dropped.
    pub fn remark(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// The text in the file `name`, or in the input when it is `-`, without white space around it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_named(&mut self, name: &str) -> io::Result<String> {
        let text = if name == "-" {
            io::read_to_string(&mut *self.input)?
        } else {
            std::fs::read_to_string(name)?
        };
        Ok(text.trim().to_owned())
    }

    /// The bytes of the file `name`, or of the input when it is `-`, in memory that is wiped.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_secret(&mut self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        if name == "-" {
            return read_wiped(&mut *self.input, 0);
        }
        let file = File::open(name)?;
        let len = file.metadata()?.len();
        read_wiped(file, usize::try_from(len).unwrap_or_default())
    }
}

/// Reads all of `source`, in steps that leave no copy behind as the buffer grows.
fn read_wiped(mut source: impl Read, expected: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut whole = Zeroizing::new(Vec::with_capacity(expected + STEP));
    let mut step = Zeroizing::new(vec![0; STEP]);
    loop {
        let len = match source.read(&mut step) {
            Ok(0) => return Ok(whole),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if whole.capacity() - whole.len() < len {
            let mut larger = Zeroizing::new(Vec::with_capacity(whole.capacity() * 2));
            larger.extend_from_slice(&whole);
            whole = larger;
        }
        whole.extend_from_slice(step.get(..len).unwrap_or_default());
    }
}
