"""Requests that nobody sends by mistake, by the hundred, and what each kind of them is answered."""
