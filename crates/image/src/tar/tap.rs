//! The stream that an archive is read from, with somebody who may take down what passes.

use std::io::{self, Read};

use super::outline::{Recorder, Run};

/// A stream and its recorder. What is read as usual is taken down literally.
pub(super) struct Tap<R> {
    stream: R,
    recorder: Option<Recorder>,
}

impl<R: Read> Tap<R> {
    pub(super) fn new(stream: R, recorder: Option<Recorder>) -> Tap<R> {
        Tap { stream, recorder }
    }

    /// Of what is read with `read_contents` from now on.
    pub(super) fn file(&mut self, path: &[u8], parts: Option<&[Run]>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.file(path, parts);
        }
    }

    /// Reads bytes that will be found in the file again.
    pub(super) fn read_contents(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.contents(read as u64);
        }
        Ok(read)
    }

    pub(super) fn into_recorder(self) -> Option<Recorder> {
        self.recorder
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(&buffer[..read]);
        }
        Ok(read)
    }
}
