"""Explorers: pictures that answer to controls. Each is a pure `render(state)`, a picture, and a thin shell of widgets."""
