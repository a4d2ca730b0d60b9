//! An archive as it arrives. Of the names in it only those that a layout or a Docker archive has by rule mean anything, and none becomes
//! a path. What says what comes is understood as early as it is there: from then on layers are unpacked as they arrive, and the rest is
//! passed over; what comes before that waits in the spool.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};

use flate2::bufread::MultiGzDecoder;
use model::digest::Digest;
use tokio::runtime::Handle;
use trust::Place;

use super::docker::Files;
use super::spool::Spool;
use super::take::{self, Incoming};
use super::{Contents, LoadError, Loaded, Wish, docker, layout};
use crate::admission::{came_in, distrust};
use crate::layers::{Lease, Ready};
use crate::manifest::LayerSource;
use crate::pull::Shared;
use crate::tar::{Entry, Kind, Reader};
use crate::unpack::show;

/// How many entries an archive may have: a thousand images of a hundred layers.
const MOST_ENTRIES: usize = 100_000;
/// How often it is tried to understand what comes before all of it is there.
const MOST_TRIES: usize = 64;
/// The largest `index.json` or `manifest.json`.
const LARGEST_TEXT: u64 = 8 << 20;
const BUFFER: usize = 256 << 10;

/// Reads an archive and takes its images.
pub(super) fn archive(
    shared: &Shared,
    runtime: &Handle,
    stream: impl Read + Send,
    wish: &Wish,
) -> Result<Vec<Loaded>, LoadError> {
    let mut reader = Reader::new(unpacked(stream)?);
    let mut intake = Intake::new(shared, runtime, wish)?;
    let mut count = 0;
    while let Some(entry) = reader.next().map_err(LoadError::Archive)? {
        count += 1;
        if count > MOST_ENTRIES {
            return Err(LoadError::entry(
                show(&entry.path),
                format!("is one of more than {MOST_ENTRIES} entries"),
            ));
        }
        intake.entry(&entry, &mut reader)?;
    }
    intake.finish()
}

/// The archive itself, whatever it is packed in.
fn unpacked<'a>(stream: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, LoadError> {
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let magic = stream.fill_buf().map_err(LoadError::Stream)?;
    let (gzip, zstd) = (magic.starts_with(&[0x1f, 0x8b]), magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    Ok(if gzip {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(stream)))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(stream).map_err(LoadError::Stream)?)
    } else {
        Box::new(stream)
    })
}

/// What an entry is for.
enum Member {
    Index,
    DockerManifest,
    /// A blob of a layout.
    Blob(Digest),
    /// A configuration or a layer of a Docker archive.
    Docker,
    Ignored,
}

impl Member {
    fn of(name: &str) -> Member {
        let hex =
            |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match name {
            "index.json" => return Member::Index,
            "manifest.json" => return Member::DockerManifest,
            _ => {}
        }
        if let Some((algorithm, digits)) = name.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) {
            return Digest::parse(&format!("{algorithm}:{digits}")).map_or(Member::Ignored, Member::Blob);
        }
        let stem = [".json", "/layer.tar", ".tar", ".tar.gz"].iter().find_map(|end| name.strip_suffix(end));
        match stem.or_else(|| name.strip_prefix("sha256:")) {
            Some(stem) if hex(stem) => Member::Docker,
            _ => Member::Ignored,
        }
    }
}

struct Intake<'a> {
    shared: &'a Shared,
    runtime: &'a Handle,
    wish: &'a Wish,
    spool: Spool,
    seen: HashSet<String>,
    index: Option<Vec<u8>>,
    docker: Option<Vec<u8>>,
    files: Files,
    /// Docker's older archives have a layer that comes again as a link to the first; the paths of both.
    links: Vec<(String, String)>,
    /// Once it is known what is in the archive.
    plan: Option<Plan>,
    /// Whether something came since it was last tried to understand it.
    news: bool,
    tries: usize,
}

struct Plan {
    images: Vec<Incoming>,
    layers: HashMap<Digest, LayerSource>,
    /// Unpacked as they arrived. They are held until they are an image's.
    ready: Vec<Ready>,
    _lease: Lease,
}

impl<'a> Intake<'a> {
    fn new(shared: &'a Shared, runtime: &'a Handle, wish: &'a Wish) -> Result<Intake<'a>, LoadError> {
        Ok(Intake {
            shared,
            runtime,
            wish,
            spool: Spool::new(&shared.config.root, shared.config.limits.layer_bytes)?,
            seen: HashSet::new(),
            index: None,
            docker: None,
            files: Files::new(),
            links: Vec::new(),
            plan: None,
            news: false,
            tries: 0,
        })
    }

    fn entry<R: Read + Send>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), LoadError> {
        let shown = show(&entry.path);
        let name = std::str::from_utf8(&entry.path).unwrap_or_default();
        let name = name.strip_prefix("./").unwrap_or(name);
        let member = Member::of(name);
        if matches!(member, Member::Ignored) {
            return Ok(());
        }
        if !self.seen.insert(name.to_owned()) {
            return Err(LoadError::entry(shown, "comes twice"));
        }
        match (entry.kind, member) {
            (Kind::File, Member::Index) => {
                self.admit(&Place::OciArchive(None))?;
                self.index = Some(text(&shown, reader)?);
                self.news = true;
            }
            (Kind::File, Member::DockerManifest) => self.docker = Some(text(&shown, reader)?),
            (Kind::File, Member::Blob(digest)) => self.blob(name, &digest, reader)?,
            (Kind::File, Member::Docker) => {
                let put = self.spool.put(&Digest::sha256([0; 32]), Contained(reader))?;
                self.files.insert(name.to_owned(), put);
            }
            (Kind::Symlink, Member::Docker) => {
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                self.links.push((name.to_owned(), target));
            }
            _ => return Err(LoadError::entry(shown, "is no file")),
        }
        Ok(())
    }

    fn blob<R: Read + Send>(
        &mut self,
        name: &str,
        digest: &Digest,
        reader: &mut Reader<R>,
    ) -> Result<(), LoadError> {
        self.understand()?;
        if let Some(plan) = &mut self.plan {
            if let Some(source) = plan.layers.get(digest) {
                let (shared, runtime) = (self.shared, self.runtime);
                let ready = if shared.layers.packs(source.diff_id.as_str()) {
                    let mut kept = Kept { stream: Contained(reader), copy: self.spool.scratch() };
                    match take::layer(shared, runtime, source, || Ok(Box::new(&mut kept))) {
                        Err(error) if error.is_unsuited() => {
                            let again = kept.again()?;
                            take::layer(shared, runtime, source, || Ok(Box::new(again)))?
                        }
                        done => done?,
                    }
                } else {
                    take::layer(shared, runtime, source, || Ok(Box::new(Contained(reader))))?
                };
                plan.ready.push(ready);
            }
            return Ok(());
        }
        let (actual, size) = self.spool.put(digest, Contained(reader))?;
        if actual != *digest {
            return Err(LoadError::entry(name, format!("has digest {actual}")));
        }
        self.files.insert(name.to_owned(), (actual, size));
        self.news = true;
        Ok(())
    }

    /// Whether the policy wants what comes so.
    fn admit(&self, place: &Place) -> Result<(), LoadError> {
        let admitted = self.shared.config.trust.admit_file(place);
        admitted.map_err(|why| LoadError::Failed(distrust(why)))
    }

    /// Finds out what is in a layout, if enough of it has come.
    fn understand(&mut self) -> Result<(), LoadError> {
        let Some(index) = self.index.as_ref().filter(|_| self.news && self.plan.is_none()) else {
            return Ok(());
        };
        if self.tries >= MOST_TRIES {
            return Ok(());
        }
        self.tries += 1;
        self.news = false;
        let limits = &self.shared.config.limits;
        let images = match layout::images(&self.spool, index, self.wish, limits) {
            Ok(images) => images,
            Err(LoadError::Missing { .. }) => return Ok(()),
            // What is wrong now does not become right by what is still to come.
            Err(error) => return Err(error),
        };
        let sources = || images.iter().flat_map(|image| image.sources.iter().cloned());
        let _lease = self.shared.layers.lease(sources().map(|source| source.diff_id.to_string()));
        let layers = sources().map(|source| (source.blob.digest.clone(), source)).collect();
        self.plan = Some(Plan { images, layers, ready: Vec::new(), _lease });
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Loaded>, LoadError> {
        self.understand()?;
        for (path, target) in std::mem::take(&mut self.links) {
            // `<id>/layer.tar` to `../<id>/layer.tar`, and nothing else: a name among names.
            let target = target.trim_start_matches("../");
            if let Some(file) = self.files.get(target).cloned() {
                self.files.insert(path, file);
            }
        }
        let limits = &self.shared.config.limits;
        let mut images = match (self.plan.as_mut(), &self.index, &self.docker) {
            (Some(plan), _, _) => std::mem::take(&mut plan.images),
            (None, Some(index), _) => layout::images(&self.spool, index, self.wish, limits)?,
            (None, None, Some(docker)) => {
                self.admit(&Place::DockerArchive)?;
                docker::images(&self.spool, docker, &self.files, self.wish, limits)?
            }
            (None, None, None) => return Err(LoadError::NotAnArchive),
        };
        take::merge(&mut images);
        let came = if self.index.is_some() { Place::OciArchive(None) } else { Place::DockerArchive };
        images.iter_mut().for_each(|image| image.origin.admissions.push(came_in(&came)));
        match (images.len(), &self.wish.name) {
            (0, _) => return Err(LoadError::Nothing),
            (count @ 2.., Some(_)) => return Err(LoadError::SeveralForOneName { count }),
            _ => {}
        }
        let take = |image| take::take(self.shared, self.runtime, image, &self.spool as &dyn Contents);
        images.iter().map(take).collect()
    }
}

fn text<R: Read>(name: &str, reader: &mut Reader<R>) -> Result<Vec<u8>, LoadError> {
    let mut text = Vec::new();
    Contained(reader).take(LARGEST_TEXT + 1).read_to_end(&mut text).map_err(LoadError::Stream)?;
    match text.len() as u64 > LARGEST_TEXT {
        true => Err(LoadError::entry(name, format!("is larger than {LARGEST_TEXT} bytes"))),
        false => Ok(text),
    }
}

/// The contents of the archive's present entry.
struct Contained<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Contained<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_data(buffer).map_err(io::Error::other)
    }
}

/// A stream that cannot be had twice, with a copy of what was read of it: a layer that was to be packed into a file, and turns out not to
/// be suited, is read from its beginning once more.
struct Kept<R> {
    stream: R,
    copy: io::Result<File>,
}

impl<R: Read> Kept<R> {
    fn again(self) -> Result<impl Read + Send, LoadError>
    where
        R: Send,
    {
        let copy = self.copy.and_then(|mut copy| copy.rewind().map(|()| copy));
        Ok(copy.map_err(LoadError::Stream)?.chain(self.stream))
    }
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if let Ok(copy) = &mut self.copy
            && let Err(error) = copy.write_all(&buffer[..read])
        {
            self.copy = Err(error);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_by_rule_mean_anything() {
        let hex = "a".repeat(64);
        let kind = |name: &str| match Member::of(name) {
            Member::Index => "index",
            Member::DockerManifest => "docker manifest",
            Member::Blob(_) => "blob",
            Member::Docker => "docker",
            Member::Ignored => "",
        };
        assert_eq!(kind("index.json"), "index");
        assert_eq!(kind("manifest.json"), "docker manifest");
        assert_eq!(kind(&format!("blobs/sha256/{hex}")), "blob");
        for docker in [".json", ".tar", ".tar.gz", "/layer.tar"] {
            assert_eq!(kind(&format!("{hex}{docker}")), "docker");
        }
        assert_eq!(kind(&format!("sha256:{hex}")), "docker");
        for odd in [
            "../index.json",
            "/index.json",
            "blobs/sha256/../x",
            "blobs/sha256/aa",
            "blobs/md5/aa",
            "x/layer.tar",
            "repositories",
            &format!("blobs/sha256/{}", "A".repeat(64)),
            &format!("../{hex}.json"),
            "",
        ] {
            assert_eq!(kind(odd), "", "{odd}");
        }
    }
}
