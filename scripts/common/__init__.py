"""What every subject needs: errors, files, processes, reading of checked fields, safetensors."""
