"""Where and in which directions weights changed, and where changes disagree in sign."""
