//! Platforms of images: operating system, processor and its variant, and which of the offered ones suits a host.

use std::fmt;

/// What an image was built for, in the words of Go's `GOOS` and `GOARCH` as the OCI image specification has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Empty where the architecture has none or the image does not say.
    pub variant: String,
    /// The version of the operating system that an image needs; empty except for Windows. It is shown, not compared.
    pub os_version: String,
    /// What an image needs of the operating system beyond the usual, or what a host has of it.
    pub os_features: Vec<String>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/arm64 or linux/arm/v7"
)]
pub struct BadPlatform {
    pub given: String,
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
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
        }
    }

    /// Takes `linux/arm/v7`.
    ///
    /// # Errors
    /// [`BadPlatform`].
    pub fn parse(text: &str) -> Result<Platform, BadPlatform> {
        let bad = || BadPlatform { given: text.chars().take(80).collect() };
        let word = |part: &&str| -> bool {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            _ if !parts.iter().all(word) => Err(bad()),
            [os, architecture] => Ok(Platform::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, variant)),
            _ => Err(bad()),
        }
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
        // Features are mandatory (OCI image specification, "Image Index Property Descriptions").
        if !offered.os_features.iter().all(|feature| self.os_features.contains(feature)) {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        let (mine, theirs) = (level(&self.variant)?, level(&offered.variant)?);
        // A variant is a set of instructions that contains those of the lower ones.
        (theirs <= mine).then(|| mine - theirs)
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
        if !self.os_version.is_empty() {
            write!(out, " {}", self.os_version)?;
        }
        for feature in &self.os_features {
            write!(out, " +{feature}")?;
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
    fn platforms_are_read_as_people_write_them() {
        for (text, read) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), read);
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux/../x"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn features_that_the_host_lacks_are_refused() {
        let mut offered = Platform::new("linux", "amd64", "");
        offered.os_features.push("erofs".into());
        let host = Platform::new("linux", "amd64", "");
        assert_eq!(host.rank(&offered), None);
        assert_eq!(offered.rank(&offered), Some(0));
        assert_eq!(offered.to_string(), "linux/amd64 +erofs");
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
        let ranks: Vec<_> = offers.iter().map(|offer| host.rank(offer)).collect();
        assert_eq!(ranks, [None, Some(2), Some(1), None, None]);
        let amd64 = Platform::new("linux", "amd64", "");
        assert_eq!(
            amd64.rank(&Platform::new("linux", "amd64", "v3")),
            None,
            "may need instructions it lacks"
        );
        assert_eq!(amd64.rank(&Platform::new("linux", "amd64", "nonsense")), None);
    }
}
