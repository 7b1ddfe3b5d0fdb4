//! Cases for whole connections: a text form that can be kept and cut down ([`case`]), playing one
//! with everything checked after every event ([`play`]), and making new ones ([`make`]).

pub mod case;
pub mod make;
pub mod play;
