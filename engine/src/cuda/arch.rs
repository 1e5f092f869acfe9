use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The GPU architecture that code is compiled for: a compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    major: u32,
    minor: u32,
}

impl Arch {
    /// The oldest that the kernels run on: it has bf16 on the tensor cores and asynchronous copies.
    pub const OLDEST: Self = Self::new(8, 0);

    /// The default architectures of a file of compiled kernels: A100 and later GPUs of its generation, H100 and H200,
    /// and both kinds of Blackwell.
    pub const USUAL: [Self; 4] = [Self::OLDEST, Self::new(9, 0), Self::new(10, 0), Self::new(12, 0)];

    /// From a compute capability.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Those of Jetson and DRIVE, whose code runs on nothing else.
    const INTEGRATED: [Self; 3] = [Self::new(8, 7), Self::new(10, 1), Self::new(11, 0)];

    /// Whether it runs code that was compiled for `code`.
    pub fn runs(self, code: Self) -> bool {
        let is_later = self.major == code.major && self.minor > code.minor;
        self == code || is_later && !Self::INTEGRATED.contains(&code)
    }

    /// The versions of CUDA whose compiler knows GPUs of this kind.
    pub(crate) fn compilers(self) -> &'static str {
        match self.major {
            8 | 9 => "CUDA 12 or 13",
            10 | 12 => "CUDA 12.8 or later",
            _ => "CUDA 13.0 or later",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `90a`: 9.0 has instructions that no later GPU has.
        let suffix = if *self == Self::new(9, 0) { "a" } else { "" };
        write!(f, "sm_{}{}{suffix}", self.major, self.minor)
    }
}

impl FromStr for Arch {
    type Err = Error;

    /// `sm_90a`, `90a` or `90`.
    fn from_str(text: &str) -> Result<Self> {
        let name = text.strip_prefix("sm_").unwrap_or(text);
        let number: u32 = name.strip_suffix('a').unwrap_or(name).parse().unwrap_or(0);
        let arch = Self::new(number / 10, number % 10);
        if format!("sm_{name}") != arch.to_string() && name != number.to_string() {
            return Err(Error::usage(format!("'{text}' is not a GPU architecture such as sm_80, sm_90a or sm_120")));
        }
        if arch < Self::OLDEST {
            let oldest = Self::OLDEST;
            return Err(Error::usage(format!("'{text}' is too old: bf16 needs {oldest} (A100, RTX 30) or later")));
        }
        Ok(arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, name) in
            [("80", "sm_80"), ("sm_90", "sm_90a"), ("90a", "sm_90a"), ("sm_100", "sm_100"), ("sm_120", "sm_120")]
        {
            assert_eq!(text.parse::<Arch>().expect(text).to_string(), name);
        }
        for text in ["", "sm_", "75", "80a", "9.0", "+90", "090", "hopper"] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn code_runs_on_its_kind() {
        let runs = |gpu: (u32, u32), code: (u32, u32)| Arch::new(gpu.0, gpu.1).runs(Arch::new(code.0, code.1));
        assert!(runs((8, 0), (8, 0)) && runs((8, 9), (8, 0)) && runs((9, 0), (9, 0)));
        assert!(!runs((8, 0), (8, 6)) && !runs((9, 0), (8, 0)) && !runs((10, 0), (9, 0)));
        assert!(runs((8, 7), (8, 7)) && !runs((8, 9), (8, 7)) && runs((10, 3), (10, 0)) && !runs((10, 3), (10, 1)));
    }
}
