"""The events about members that come and go, as `ramd.events` declares all others."""

from __future__ import annotations

from dataclasses import dataclass

from ramd.events import ERROR, WARNING, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsLeft(Event):
    level = WARNING
    template = "slots for the members are left as they are, and looked at again: {why}"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStep(Event):
    template = "membership: {step}"
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStepFailed(Event):
    level = WARNING
    template = "membership: {step} is tried again or given up: {why}"
    step: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerStays(Event):
    level = WARNING
    template = "node {node_id} stays a learner: there are {voter_count} voters, which are the most"
    node_id: int
    voter_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoined(Event):
    template = "node {node_id} has joined cluster {cluster_name} through {via}"
    node_id: int
    cluster_name: str
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved(Event):
    level = ERROR
    template = "this node was removed from its cluster ({how}): its server stops, its data stay"
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRegressed(Event):
    level = ERROR
    template = (
        "node {peer} refuses this node: it holds less than it once confirmed ({what}); its disk was"
        " set back or copied: remove it and add it again"
    )
    peer: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaysRemoved(Event):
    level = ERROR
    template = "{advice}"
    advice: str
