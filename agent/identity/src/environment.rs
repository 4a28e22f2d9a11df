//! Variables of a process and of those that it descends from. Environments are read one after the other, and only what
//! is asked for is kept of them: they are as large as whoever runs the processes likes.

use std::io::{self, Read};

use memchr::memchr;
use zeroize::Zeroizing;

use crate::{
    host::{Host, ProcessId, Seen},
    token::LONGEST,
};

/// Most bytes that are read of all environments together. A job's are some 10 KiB each; Linux gives a program 6 MiB at most
/// for arguments and environment (fs/exec.c, `bprm_stack_limits`).
pub(crate) const MOST: u64 = 32 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Variables that mean something together.
pub(crate) type Names<'n> = Vec<&'n str>;

/// Variables' values, and who has them.
#[derive(Clone)]
pub(crate) struct Held {
    /// The nearest process that has them.
    pub(crate) nearest: ProcessId,
    /// The highest process that has the same.
    pub(crate) root: ProcessId,
    /// In the order of the names, none of them empty. What is longer than a token may be is cut off a byte behind that.
    pub(crate) values: Vec<Zeroizing<Vec<u8>>>,
}

/// What a lineage's environments hold.
pub(crate) struct Environments<'n> {
    /// By what was asked for.
    held: Vec<(Names<'n>, Option<Held>)>,
    complete: bool,
}

impl<'n> Environments<'n> {
    /// Looks for these in the environments of a lineage, nearest first.
    pub(crate) fn read(host: &dyn Host, lineage: &[Seen], asked: Vec<Names<'n>>) -> Self {
        let mut search = Search::new(asked.iter().flatten().copied());
        let mut held: Vec<_> = asked.into_iter().map(|names| (names, None)).collect();
        let mut left = MOST;
        for Seen { id, .. } in lineage {
            if held.is_empty() {
                break;
            }
            let Some(environment) = host.environment(*id) else { continue };
            let whole = search.read(&mut environment.take(left), &mut left);
            if left == 0 {
                return Self { held: Vec::new(), complete: false };
            }
            if whole.is_ok() {
                held.iter_mut().for_each(|(names, held)| search.tell(*id, names, held));
            }
        }
        Self { held, complete: true }
    }

    /// The values of variables that were asked for; none if no process has all of them.
    pub(crate) fn get(&self, names: &[&str]) -> Option<&Held> {
        self.held.iter().find(|(asked, _)| asked == names)?.1.as_ref()
    }

    /// Whether everything was read. If not, nothing of it is told: what is nearer than the rest may belong to a larger tree.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }
}

/// A search for variables in one environment after the other.
struct Search<'n> {
    /// What is looked for, and its value in the environment that was read last.
    wanted: Vec<(&'n str, Option<Zeroizing<Vec<u8>>>)>,
    /// As much of the present entry as is worth keeping, in a buffer that never grows: no copy is left behind.
    entry: Zeroizing<Vec<u8>>,
    most: usize,
    chunk: Zeroizing<Vec<u8>>,
}

impl<'n> Search<'n> {
    fn new(names: impl Iterator<Item = &'n str>) -> Self {
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        // The name, an equals sign, and enough of the value to see that it is too long.
        let most = names.iter().map(|name| name.len()).max().unwrap_or_default() + LONGEST + 2;
        Self {
            wanted: names.into_iter().map(|name| (name, None)).collect(),
            entry: Zeroizing::new(Vec::with_capacity(most)),
            most,
            chunk: Zeroizing::new(vec![0; CHUNK]),
        }
    }

    /// Reads an environment: entries of a name, an equals sign and a value, with a NUL behind each (proc(5), environ). Counts
    /// down what is read.
    fn read(&mut self, environment: &mut dyn Read, left: &mut u64) -> io::Result<()> {
        self.wanted.iter_mut().for_each(|(_, value)| *value = None);
        self.entry.clear();
        loop {
            let mut chunk = std::mem::take(&mut *self.chunk);
            let read = environment.read(&mut chunk);
            let count = read.as_ref().copied().unwrap_or_default();
            *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
            self.take(chunk.get(..count).unwrap_or_default());
            *self.chunk = chunk;
            match read {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        self.end();
        Ok(())
    }

    fn take(&mut self, mut read: &[u8]) {
        while let Some((part, behind)) = memchr(0, read).and_then(|end| read.split_at_checked(end)) {
            self.add(part);
            self.end();
            read = behind.get(1..).unwrap_or_default();
        }
        self.add(read);
    }

    fn add(&mut self, part: &[u8]) {
        let room = self.most.saturating_sub(self.entry.len()).min(part.len());
        self.entry.extend_from_slice(part.get(..room).unwrap_or_default());
    }

    /// The present entry is over. Of several of a name the first counts, as getenv(3) has it.
    fn end(&mut self) {
        for (name, found) in self.wanted.iter_mut().filter(|(_, found)| found.is_none()) {
            let value = self.entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            *found = value.map(|value| Zeroizing::new(value.to_vec()));
        }
        self.entry.clear();
    }

    /// Notes what the process whose environment was read last has of these, the nearest process first.
    fn tell(&self, id: ProcessId, names: &Names<'n>, held: &mut Option<Held>) {
        let values = names.iter().map(|name| self.value(name).map(|value| Zeroizing::new(value.to_vec())));
        let Some(values) = values.collect::<Option<Vec<_>>>() else { return };
        match held {
            None => *held = Some(Held { nearest: id, root: id, values }),
            Some(held) if held.values == values => held.root = id,
            Some(_) => {}
        }
    }

    /// A variable's value, if it is there and not empty.
    fn value(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.wanted.iter().find(|(wanted, _)| *wanted == name)?;
        value.as_deref().map(Vec::as_slice).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text in pieces of this many bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Self(rest, most) = self;
            let most = *most.min(&mut buffer.len());
            rest.read(&mut buffer[..most])
        }
    }

    fn search<'n>(names: &[&'n str], text: &[u8], pieces: usize) -> Search<'n> {
        let mut search = Search::new(names.iter().copied());
        search.read(&mut Pieces(text, pieces), &mut MOST.clone()).unwrap();
        search
    }

    #[test]
    fn a_value_is_found_however_the_environment_is_cut() {
        let text = b"AB=0\0A=1\0\0=\0A=2\0B=\0C=x=y\0D\0E=last";
        for pieces in 1..=text.len() {
            let search = search(&["A", "B", "C", "D", "E", "F"], text, pieces);
            assert_eq!(search.value("A"), Some(&b"1"[..]), "the first counts");
            assert_eq!(search.value("B"), None, "an empty one is none");
            assert_eq!(search.value("C"), Some(&b"x=y"[..]));
            assert_eq!((search.value("D"), search.value("F")), (None, None));
            assert_eq!(search.value("E"), Some(&b"last"[..]));
        }
    }

    #[test]
    fn nothing_of_one_environment_is_taken_for_the_next_one_s() {
        let mut search = search(&["A", "B"], b"A=1\0B=", 1);
        search.read(&mut &b"2\0B=3\0"[..], &mut MOST.clone()).unwrap();
        assert_eq!((search.value("A"), search.value("B")), (None, Some(&b"3"[..])));
    }

    #[test]
    fn of_a_long_value_only_so_much_is_kept_that_its_length_shows() {
        let text = [b"A=", &*vec![b'x'; 3 * LONGEST], b"\0B=1\0"].concat();
        let search = search(&["A", "B"], &text, CHUNK);
        assert_eq!(search.value("A").map(<[u8]>::len), Some(LONGEST + 1));
        assert_eq!(search.value("B"), Some(&b"1"[..]));
        assert_eq!(search.entry.capacity(), search.most);
    }
}
