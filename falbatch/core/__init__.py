"""Pure decisions: values in, values out. No await, clock, unseeded chance, environment or open file."""
