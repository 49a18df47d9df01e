//! The roll on a Redis or Valkey server: how a beat and the roll are written.

use std::time::Duration;

use redis::ScriptInvocation;

use super::{RedisTurnstile, micros};
use crate::engine::turnstile::{
    ALONE_AFTER, Away, BACK_FOR, Beat, ByItself, Member, Part, SILENT_AFTER, Stamp,
};

pub(super) const ATTEMPT: &str = "read the roll of instances";

/// The store's clock, its epoch, and the asker's part.
pub(super) type Head = (u64, String, u64, u64);
/// An instance: id, name, details, when it was heard, for how long it is away, after how long
/// without word it is dead, its two parts, for how long it may have been by itself untold.
pub(super) type Row = (String, String, String, u64, i64, u64, u64, u64, u64, u64, u64);

/// In place of for how long it is away: it has ended.
const GONE: i64 = -2;

impl RedisTurnstile {
    pub(super) fn roll_call(&self, beat: &Beat) -> ScriptInvocation<'_> {
        let mut call = self.roll_script.prepare_invoke();
        let [roll, epoch] = self.names.roll();
        call.key(roll).key(epoch);
        call.arg(&*self.instance).arg(&*self.name).arg(&*self.details);
        call.arg(beat.echo.0).arg(beat.part.from).arg(beat.part.to);
        call.arg(u8::from(beat.goes_alone)).arg(match beat.by_itself {
            ByItself::No => 0,
            ByItself::Perhaps => 1,
            ByItself::NoMore => 2,
        });
        call.arg(u8::from(beat.leaving));
        call.arg(micros(SILENT_AFTER)).arg(micros(BACK_FOR)).arg(micros(beat.dead_after));
        call.arg(micros(ALONE_AFTER)).arg(&beat.epoch).arg(beat.remembered.len());
        for member in &beat.remembered {
            let [one, other] = member.parts;
            let numbers = [
                member.seen.0,
                0,
                micros(member.dead_after),
                one.from,
                one.to,
                other.from,
                other.to,
            ];
            let numbers = numbers.map(|number| number.to_string()).join("\t");
            call.arg(&member.id);
            // not gone, and what it has not told of is not known
            call.arg(format!("{numbers}\t0\t-1\t{}\t{}", member.name, member.details));
        }
        for id in &beat.ended {
            call.arg(id);
        }
        call
    }
}

/// The members, and those that have ended.
pub(super) fn members(rows: Vec<Row>) -> (Vec<Member>, Vec<Member>) {
    let (gone, there): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.4 == GONE);
    (there.into_iter().map(member).collect(), gone.into_iter().map(member).collect())
}

fn member(row: Row) -> Member {
    let (id, name, details, seen, away, dead_after, from, to, from_given, to_given, untold) = row;
    let away = match away {
        0 => None,
        span => Some(
            u64::try_from(span)
                .map_or(Away::Silent, |span| Away::Back(Duration::from_micros(span))),
        ),
    };
    let parts = [Part { from, to }, Part { from: from_given, to: to_given }];
    let dead_after = Duration::from_micros(dead_after);
    let untold = Duration::from_micros(untold);
    Member { id, name, details, seen: Stamp(seen), away, dead_after, parts, untold }
}
