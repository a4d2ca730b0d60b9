//! CRI's `Signal` and the kernel's numbers.

use spec::signal::{RTMAX, RTMIN};

use super::{BadField, enumeration};
use crate::runtime_v1::Signal;

/// The number of a signal, none for the runtime's default. The numbers of the enum are CRI's own, in the order of the alphabet.
pub fn number(field: &str, signal: i32) -> Result<Option<u8>, BadField> {
    let signal: Signal = enumeration(field, signal)?;
    if signal == Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = signal.as_str_name().trim_start_matches("SIGNAL_");
    let name = name.replace("MINPLUS", "MIN+").replace("MAXMINUS", "MAX-");
    let number = spec::signal::parse(&name);
    number.map(Some).ok_or_else(|| BadField::new(field, format!("{name} is not known on this machine")))
}

/// The enum's value for a number; the runtime's default for what is no signal.
pub fn value(number: u8) -> Signal {
    let name = match number {
        RTMIN..=RTMAX => spec::signal::name(number).map(|name| {
            let name = name.replace("MIN+", "MINPLUS").replace("MAX-", "MAXMINUS");
            format!("SIGNAL_{name}")
        }),
        _ => spec::signal::name(number).map(|name| format!("SIGNAL_{name}")),
    };
    name.and_then(|name| Signal::from_str_name(&name)).unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_have_numbers_that_lead_back() {
        for signal in 1..=65 {
            let number = number("stop_signal", signal).unwrap().unwrap();
            let back = self::number("stop_signal", value(number).into()).unwrap();
            assert_eq!(back, Some(number), "{signal}");
        }
        assert_eq!(number("stop_signal", 0), Ok(None));
        assert_eq!(number("stop_signal", Signal::Sigterm.into()), Ok(Some(15)));
        assert_eq!(number("stop_signal", Signal::Sigrtmaxminus14.into()), Ok(Some(50)));
        assert_eq!(value(9), Signal::Sigkill);
        assert_eq!(value(0), Signal::RuntimeDefault);
        for unknown in [66, -1, i32::MAX] {
            assert_eq!(number("config.stop_signal", unknown).unwrap_err().field, "config.stop_signal");
        }
    }
}
