//! What a command sees of the world: its input, its output, the environment.
//!
//! Commands get a [`Console`] and touch no global stream, so that tests run them in the same
//! process and read what they print.

use std::io::{self, BufRead, Write};

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
}
