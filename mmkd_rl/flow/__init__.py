from .backbone import KnowledgeFlow, KnowledgeFlowBackbone, flow_of
from .schedule import FlowSchedule

__all__ = ['FlowSchedule', 'KnowledgeFlow', 'KnowledgeFlowBackbone', 'flow_of']
