//! Platforms of images: operating system, processor and its variant, and which of the offered ones suits a host.

use std::fmt;

/// What an image was built for, in the words of Go's `GOOS` and `GOARCH` as the OCI image specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Empty where the architecture has none or the image does not say.
    pub variant: String,
}

impl Platform {
    /// A platform in the usual spelling: `x86_64` becomes `amd64`, `aarch64` becomes `arm64`, and variants that say nothing are dropped.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", ""),
            "aarch64" => ("arm64", ""),
            "armhf" => ("arm", "v7"),
            "armel" => ("arm", "v6"),
            "x86" | "i386" | "i686" => ("386", ""),
            "powerpc64" | "powerpc64le" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        let variant = match (architecture, if variant.is_empty() { implied } else { variant }) {
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            ("arm", "" | "7") => "v7",
            ("arm", "6") => "v6",
            ("arm", "5") => "v5",
            (_, variant) => variant,
        };
        Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// What this program was compiled for.
    pub fn of_this_program() -> Platform {
        Platform::new(std::env::consts::OS, std::env::consts::ARCH, "")
    }

    /// How well `offered` runs on this host: lower is better, none: not at all.
    pub fn rank(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        let (mine, theirs) = (level(&self.variant)?, level(&offered.variant)?);
        // A variant is a set of instructions that contains those of the lower ones.
        (theirs <= mine).then(|| mine - theirs)
    }

    /// The index of the offer that suits best; of equals the first.
    pub fn choose<'a>(&self, offers: impl IntoIterator<Item = &'a Platform>) -> Option<usize> {
        offers
            .into_iter()
            .enumerate()
            .filter_map(|(index, offered)| Some((self.rank(offered)?, index)))
            .min()
            .map(|(_, index)| index)
    }
}

/// `v7` is 7; no variant is the lowest level.
fn level(variant: &str) -> Option<u32> {
    match variant {
        "" => Some(0),
        text => text.strip_prefix('v')?.parse().ok(),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(out, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_unified() {
        assert_eq!(Platform::new("linux", "x86_64", "").to_string(), "linux/amd64");
        assert_eq!(Platform::new("linux", "aarch64", "v8").to_string(), "linux/arm64");
        assert_eq!(Platform::new("linux", "armhf", "").to_string(), "linux/arm/v7");
    }

    #[test]
    fn the_best_offer_wins() {
        let host = Platform::new("linux", "arm", "v7");
        let offers = [
            Platform::new("windows", "arm", "v7"),
            Platform::new("linux", "arm", "v5"),
            Platform::new("linux", "arm", "v6"),
            Platform::new("linux", "arm", "v8"),
            Platform::new("linux", "amd64", ""),
        ];
        assert_eq!(host.choose(&offers), Some(2));
        assert_eq!(Platform::new("linux", "riscv64", "").choose(&offers), None);
        let amd64 = Platform::new("linux", "amd64", "");
        assert_eq!(
            amd64.rank(&Platform::new("linux", "amd64", "v3")),
            None,
            "may need instructions it lacks"
        );
        assert_eq!(amd64.rank(&Platform::new("linux", "amd64", "nonsense")), None);
    }
}
