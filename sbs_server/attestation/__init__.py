"""Enrolment and session state."""
