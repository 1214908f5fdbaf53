"""Explorers: pictures that answer to controls. Each is a pure `render(state)` and a thin shell of widgets."""
