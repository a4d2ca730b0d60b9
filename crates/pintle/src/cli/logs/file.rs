//! Reads the lines of a log file, from its last ones on and across rotation.
//!
//! Rotation is what the kubelet does: the file is renamed, and the runtime makes a new one under the old name. The old one is read to its
//! end before the new one is opened, so no line is lost and none comes twice.

use super::line::Record;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest line that is read as one; a runtime splits at 16 KiB, so a longer one is no CRI log. Bounds memory against a file of another kind.
const LONGEST_LINE: usize = 1 << 20;

/// A log file being read.
pub(crate) struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// A line whose end has not been written yet.
    unfinished: Vec<u8>,
}

impl LogFile {
    /// Opens the file at its beginning.
    pub(crate) fn open(path: &Path) -> io::Result<LogFile> {
        let reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
        Ok(LogFile { path: path.to_owned(), reader, unfinished: Vec::new() })
    }

    /// Moves to the last `count` lines. Parts of a long line count as one.
    pub(crate) fn seek_to_last(&mut self, count: usize) -> io::Result<()> {
        let mut starts: VecDeque<u64> = VecDeque::with_capacity(count.min(4096) + 1);
        let mut offset = 0;
        let mut begins = true;
        let mut line = Vec::new();
        while self.read_line(&mut line)? {
            if begins {
                starts.push_back(offset);
                if starts.len() > count {
                    starts.pop_front();
                }
            }
            begins = !Record::parse(&line).is_some_and(|record| record.partial);
            offset += line.len() as u64 + 1;
        }
        let end = self.reader.stream_position()?;
        self.unfinished.clear();
        self.reader.seek(SeekFrom::Start(starts.front().copied().unwrap_or(end)))?;
        Ok(())
    }

    /// Reads the next complete line into `line`, without its newline. `false` when there is none yet.
    pub(crate) fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        if self.read_line(line)? {
            return Ok(true);
        }
        // What was renamed away is read to its end before the new one: the old one is complete once the new one is there.
        if !self.was_replaced()? {
            return Ok(false);
        }
        if self.read_line(line)? {
            return Ok(true);
        }
        match File::open(&self.path) {
            Ok(file) => self.reader = BufReader::with_capacity(64 * 1024, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        if !self.unfinished.is_empty() {
            std::mem::swap(line, &mut self.unfinished);
            self.unfinished.clear();
            return Ok(true);
        }
        self.read_line(line)
    }

    /// Whether another file has the name by now, or this one was cut to less than what was read.
    fn was_replaced(&mut self) -> io::Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let open = self.reader.get_ref().metadata()?;
        let cut = open.len() < self.reader.stream_position()?;
        Ok(cut || (now.dev(), now.ino()) != (open.dev(), open.ino()))
    }

    /// Reads a line of the open file; an unfinished one is kept until the rest is there.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(available.len());
            if self.unfinished.len() + taken > LONGEST_LINE {
                let path = self.path.display();
                return Err(io::Error::other(format!(
                    "{path} has a line of more than {LONGEST_LINE} bytes; it is no CRI log"
                )));
            }
            self.unfinished.extend_from_slice(&available[..taken]);
            self.reader.consume(newline.map_or(taken, |at| at + 1));
            if newline.is_some() {
                line.clear();
                std::mem::swap(line, &mut self.unfinished);
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(file: &mut LogFile) -> Vec<String> {
        let mut line = Vec::new();
        let mut all = Vec::new();
        while file.next_line(&mut line).unwrap() {
            all.push(String::from_utf8(line.clone()).unwrap());
        }
        all
    }

    #[test]
    fn the_last_lines_count_parts_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "t stdout F a\nt stdout P b1\nt stdout P b2\nt stdout F b3\nt stdout F c\n")
            .unwrap();
        for (count, left) in [(0, 0), (1, 1), (2, 4), (3, 5), (9, 5)] {
            let mut file = LogFile::open(&path).unwrap();
            file.seek_to_last(count).unwrap();
            assert_eq!(lines(&mut file).len(), left, "--tail {count}");
        }
    }

    #[test]
    fn a_line_is_not_given_before_its_end_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut writer = File::create(&path).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        writer.write_all(b"t stdout F hel").unwrap();
        assert!(lines(&mut file).is_empty());
        writer.write_all(b"lo\n").unwrap();
        assert_eq!(lines(&mut file), ["t stdout F hello"]);
    }

    #[test]
    fn rotation_loses_no_line_and_repeats_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut old = File::create(&path).unwrap();
        old.write_all(b"1\n2\n").unwrap();
        let mut file = LogFile::open(&path).unwrap();
        assert_eq!(lines(&mut file), ["1", "2"]);
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        assert!(lines(&mut file).is_empty(), "between rename and reopen there is no new file");
        old.write_all(b"3\n").unwrap();
        std::fs::write(&path, "4\n5\n").unwrap();
        assert_eq!(lines(&mut file), ["3", "4", "5"]);
    }

    #[test]
    fn a_file_that_is_cut_is_read_again_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "1\n2\n3\n").unwrap();
        let mut file = LogFile::open(&path).unwrap();
        assert_eq!(lines(&mut file).len(), 3);
        std::fs::write(&path, "4\n").unwrap();
        assert_eq!(lines(&mut file), ["4"]);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, vec![b'x'; LONGEST_LINE + 2]).unwrap();
        assert!(LogFile::open(&path).unwrap().next_line(&mut Vec::new()).is_err());
    }
}
