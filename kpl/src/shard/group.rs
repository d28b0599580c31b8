//! Accepts records in groups: a group looks up the routing table once, and locks each intake and takes room once.
//!
//! The effect is that of accepting each record in turn. The intakes of a group stay locked until its last record is
//! accepted, so that the accepted records are always the first ones of the group.

use std::sync::Arc;

use kinesis_aggregation::HashKey;

use crate::ack::{Completer, Deliveries};
use crate::aggregate::builder::cost_of;
use crate::buffer::Charge;
use crate::record::{Priority, Record};
use crate::shard::queue::{Intake, IntakeGuard, NotAccepted};
use crate::shard::router::{RoutingTable, ShardRouter};

/// Which intakes take the records of a group. Keeps its memory from group to group.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    /// By record: the position of its intake among `positions`.
    of_record: Vec<u32>,
    /// Positions in the routing table of the intakes that take a record, ascending.
    positions: Vec<usize>,
    /// By position in the routing table: the position among `positions`, or [`UNUSED`].
    places: Vec<u32>,
}

const UNUSED: u32 = u32::MAX;

impl Grouping {
    fn update(&mut self, table: &RoutingTable, hash_keys: &[HashKey]) {
        self.positions.clear();
        self.places.resize(table.intake_count(), UNUSED);
        self.of_record.clear();
        for hash_key in hash_keys {
            let position = table.position_of(*hash_key);
            if self.places[position] == UNUSED {
                self.places[position] = 0;
                self.positions.push(position);
            }
            self.of_record.push(position as u32);
        }
        self.positions.sort_unstable();
        for (place, position) in (0..).zip(&self.positions) {
            self.places[*position] = place;
        }
        for position in &mut self.of_record {
            *position = self.places[*position as usize];
        }
        self.positions.iter().for_each(|position| self.places[*position] = UNUSED);
    }
}

/// An intake that takes records of the group.
struct Taker<'a> {
    intake: &'a Arc<Intake>,
    guard: IntakeGuard<'a>,
    /// Room for its records of the group. Dropped after all intakes are unlocked.
    room: Option<Charge>,
    /// The part of its last record in the deliveries.
    part: Option<u32>,
}

impl ShardRouter {
    /// Accepts records in turn, until one is not accepted. Returns the number of accepted ones. `room` is room of the
    /// first record, if that was waited for.
    pub(crate) fn accept_group(
        &self,
        records: &mut [Record<'_>],
        hash_keys: &[HashKey],
        mut room: Option<Charge>,
        deliveries: &mut Deliveries,
        grouping: &mut Grouping,
    ) -> (usize, Result<(), NotAccepted>) {
        let mut accepted = 0;
        while accepted < records.len() {
            if self.is_closed() {
                return (accepted, Err(NotAccepted::Closed));
            }
            let table = self.table();
            let (left, hash_keys) = (&mut records[accepted..], &hash_keys[accepted..]);
            grouping.update(&table, hash_keys);
            let (count, outcome) =
                self.accept_under(&table, left, hash_keys, &mut room, deliveries, grouping);
            accepted += count;
            match outcome {
                // An intake was closed, because a new table is in place or the producer closes: try again.
                Ok(()) | Err(NotAccepted::Closed) => {}
                Err(not_accepted) => return (accepted, Err(not_accepted)),
            }
        }
        (accepted, Ok(()))
    }

    /// Accepts records in turn with the intakes of one table.
    fn accept_under(
        &self,
        table: &RoutingTable,
        records: &mut [Record<'_>],
        hash_keys: &[HashKey],
        room: &mut Option<Charge>,
        deliveries: &mut Deliveries,
        grouping: &Grouping,
    ) -> (usize, Result<(), NotAccepted>) {
        let context = &self.context;
        // In the order of the table, as every task that locks several intakes.
        let mut takers: Vec<_> = self
            .take_room(table, records, room, grouping)
            .zip(&grouping.positions)
            .map(|(room, position)| {
                let intake = table.intake_at(*position);
                Taker { intake, guard: intake.lock_to_accept(), room, part: None }
            })
            .collect();
        let (mut accepted, mut outcome) = (0, Ok(()));
        let (mut ready, mut dropped) = (Vec::new(), Vec::new());
        let places = grouping.of_record.iter().map(|place| *place as usize);
        for ((record, hash_key), place) in records.iter_mut().zip(hash_keys).zip(places) {
            let Taker { intake, guard, room, part } = &mut takers[place];
            let drawn = context.telemetry.draw(&record.partition_key, record.payload_len());
            let joined = guard.accept(record, *hash_key, room, context, |completer| {
                deliveries.add(part, completer);
            });
            if guard.became_ready() {
                ready.push(*intake);
            }
            match joined {
                Ok(()) => context.telemetry.accepted(drawn),
                // It never waits for room. It fails once the intakes are unlocked.
                Err(NotAccepted::NoRoom(_)) if record.priority == Priority::Droppable => {
                    let mut completer = Completer::new(&context.outcomes);
                    deliveries.add(&mut None, &mut completer);
                    dropped.push((completer, record.take()));
                }
                Err(not_accepted) => {
                    outcome = Err(not_accepted);
                    break;
                }
            }
            accepted += 1;
        }
        context.outcomes.counters.user_records_accepted.add(accepted);
        // All are unlocked before tasks are woken and room is given back, which runs foreign code.
        let mut rooms: Vec<_> = takers.into_iter().map(|taker| taker.room).collect();
        ready.into_iter().for_each(|intake| self.add_ready(intake));
        for (completer, record) in dropped {
            context.complete_as_dropped(completer, record);
        }
        // A record that waited for its room keeps it for the next table.
        if let (Err(NotAccepted::Closed), Some(place)) =
            (&outcome, grouping.of_record.get(accepted))
        {
            *room = rooms[*place as usize].take();
        }
        (accepted, outcome)
    }

    /// Takes the room of all records at once, apart from that of the aggregates that they open, for each intake that has
    /// so much. The records of the others take their room one by one.
    fn take_room(
        &self,
        table: &RoutingTable,
        records: &[Record<'_>],
        first: &mut Option<Charge>,
        grouping: &Grouping,
    ) -> impl Iterator<Item = Option<Charge>> {
        let mut costs = vec![0; grouping.positions.len()];
        // A droppable record must find room of its own beside what is taken.
        if records.iter().all(|record| record.priority != Priority::Droppable) {
            for (record, place) in records.iter().zip(&grouping.of_record) {
                costs[*place as usize] += cost_of(record).0;
            }
        }
        let mut rooms: Vec<_> = (grouping.positions.iter().zip(costs))
            .map(|(position, cost)| {
                self.context.budget.try_charge(table.intake_at(*position).id, cost)
            })
            .collect();
        if let (Some(mut first), Some(place)) = (first.take(), grouping.of_record.first()) {
            let place = *place as usize;
            first.move_to(table.intake_at(grouping.positions[place]).id);
            match &mut rooms[place] {
                Some(room) => room.absorb(first),
                none => *none = Some(first),
            }
        }
        rooms.into_iter()
    }
}
