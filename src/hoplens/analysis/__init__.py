"""What a network routes: hop maps, measures, walks, lesions, null models, dynamics, explanations."""
